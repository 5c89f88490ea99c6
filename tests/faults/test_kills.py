"""Whatever is killed, at whatever moment: every query is answered, and every feedback counts exactly once."""

import os
import random
import shutil
import signal
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
from e2e.any_client import Record
from e2e.programs import Program, RunningProcess, until
from faults.deployment import CONFIGURATION, Deployment, child
from faults.under_traffic import UnderTraffic
from faults.verdict import MAY_BE_DEFAULT, Verdict
from faults.watching import Watch

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.short, pytest.mark.timeout(1800)]

CALM_QUERIES = 480
"""Six seconds of traffic: a worker that served for five is started again at once, one that did not after a while."""
FROZEN_QUERIES = 400
"""A second more than the objectives of the applications."""
NEVER_TWICE = 1_000
"""So many numbers make a billion rows: none is asked twice, so each waits for the host, and none is cached."""
KILLED, LOST, AGAIN, FROZEN = "", ", its data lost", ", and again while it starts", ", frozen before"


class Kills(UnderTraffic):
    """What `up` keeps, and `up` itself, to kill; `left` is what ran below an `up` when that was killed."""

    def __init__(self, deployment: Deployment, report, seed: int, watched: Any = None, **traffic: Any) -> None:
        super().__init__(deployment, report, watched, **traffic)
        self.rng, self.hows, self.left = random.Random(seed), list[str](), set[RunningProcess]()
        self.in_vain = Watch(self.client, self.catalogue.predictions, counts=waited_in_vain)

    def do(self, kill, times: Mapping[str, int], short: bool) -> Verdict:
        """Kill it so often in each way, in some order, in the short form once; what the logs say then."""
        self.up = self.serve(self.deployment.start("up"))
        self.answers()
        ways = [*times] if short else [way for way, count in times.items() for _ in range(count)]
        self.rng.shuffle(ways)
        for how in ways:
            kill(how)
            self.hows.append(how)
            self.answers()
        verdict = self.judged(self.up)
        until("nothing is left of those that were killed", lambda: not any(process.runs for process in self.left))
        return verdict

    def child(self, role: str, how: str) -> None:
        self.asks(CALM_QUERIES + self.rng.randrange(120))
        one = child(self.up, f" worker {role} ")
        if how == FROZEN:
            os.kill(one.pid, signal.SIGSTOP)
            seen = len(self.in_vain.arrivals_s)
            self.asks(FROZEN_QUERIES)
            until("a query that waited in vain", lambda: len(self.in_vain.arrivals_s) > seen)
        self.fault()
        if how == LOST:
            self.lose(one, self.deployment.data)
        self.kill(one)
        if how == AGAIN:
            second = child(self.up, f" worker {role} ")
            self.asks(self.rng.randrange(40))
            self.kill(second)

    def kill(self, one: RunningProcess) -> None:
        os.kill(one.pid, signal.SIGKILL)
        until("its end", lambda: not one.runs)

    def supervisor(self, how: str) -> None:
        """Kill `up`, and start the next one, whoever of the old still drains."""
        self.asks(self.rng.randrange(20, 200))
        self.fault()
        self.end_up()
        if how == LOST:  # another machine: the old process cannot touch the new one's files
            until("the old are gone", lambda: not any(process.runs for process in self.left))
            shutil.rmtree(self.deployment.data, ignore_errors=True)
        if how == AGAIN:
            self.up = self.enter_context(self.deployment.start("up"))
            child(self.up, " worker router ")
            self.end_up()
        self.up = self.serve(self.deployment.start("up"))

    def end_up(self) -> None:
        self.left |= self.up.children()
        self.up.signal(signal.SIGKILL)
        self.up.ended()

    def conclude_ways(self, case: str, verdict: Verdict) -> None:
        """A line for each way in which it was killed; the verdict, which is about all of them, is in the first."""
        stalls_s = defaultdict[str, list[float]](list)
        for how, stall_s in zip(self.hows, self.stalls_s, strict=True):
            stalls_s[how].append(stall_s)
        for how in sorted(stalls_s):
            kills = len(stalls_s[how]) * (1 + (how == AGAIN))
            self.report.add(f"kill -9 of {case}{how}", None if how else verdict, kills=kills, stalls_s=stalls_s[how])
        verdict.check()
        assert verdict.defaults.keys() <= MAY_BE_DEFAULT


def test_routers(deployment, short, fault_report):
    """kill -9 of the router that `up` keeps: while it starts, recovers, decides and learns."""
    with Kills(deployment, fault_report, 20171) as kills:
        verdict = kills.do(partial(kills.child, "router"), {KILLED: 40, LOST: 8, AGAIN: 8}, short)
    kills.conclude_ways("the router", verdict)
    besides = {one["model"] for audit in verdict.audits for one in audit.content.get("models", ())}
    assert besides == {"sum", "three", "slow-sum", "slower"}, "flaky answers as a canary, and is in no audit"
    missing = [one.get("explanation", "") for audit in verdict.audits for one in audit.content.get("missing", ())]
    assert any("nobody was asked again" in why for why in missing), "no kill came between a prediction and its audit"
    assert deployment.behind(deployment.catalogue.router_group, deployment.catalogue.queries) == {}


def by_the_hosted_model(answer: Record) -> bool:
    """Whether only a host can have given this answer."""
    return answer.content["application"] == "slow" and "default" not in answer.content


def waited_in_vain(answer: Record) -> bool:
    """Whether this is the default because the host was not there."""
    said = str(answer.content.get("explanation", ""))
    return answer.content["application"] == "slow" and said.startswith("no output of slow-sum:1 within 4000 ms")


def test_hosts(deployment, short, fault_report):
    """kill -9 of the host that `up` keeps: queries are answered by the default in time, later ones by the model."""
    with Kills(deployment, fault_report, 20172, {"counts": by_the_hosted_model}, numbers=NEVER_TWICE) as kills:
        kills.enter_context(kills.in_vain)
        verdict = kills.do(partial(kills.child, "host"), {KILLED: 40, FROZEN: 2, AGAIN: 8}, short)
    kills.conclude_ways("a host", verdict)
    assert any(waited_in_vain(one) for one in verdict.answers)


def test_supervisors(deployment, short, fault_report):
    """kill -9 of `up`: its workers end by themselves, and the next `up` goes on, whoever of the old still drains."""
    with Kills(deployment, fault_report, 20173) as kills:
        verdict = kills.do(kills.supervisor, {KILLED: 20, LOST: 5, AGAIN: 5}, short)
    kills.conclude_ways("the supervisor", verdict)


@pytest.mark.long
def test_nothing_outlives_a_supervisor_with_a_kafka_of_its_own(tmp_path):
    with Program("up", "--config", str(CONFIGURATION), folder=tmp_path) as up:
        up.ready()
        started = up.children()
        assert sum("kafka.Kafka" in process.command for process in started) == 1
        assert sum(" worker " in process.command for process in started) == 3  # with the steward
        up.signal(signal.SIGKILL)
        assert up.ended() == -signal.SIGKILL
        until("nothing is left", lambda: not any(process.runs for process in started), 30.0)
