"""Three routers and two hosts through minutes of random faults, from a seed that is told."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import oracle
import pytest
from e2e.programs import RunningProcess
from faults.deployment import CONFIGURATION, Deployment, running
from faults.restored import compact_often
from faults.under_traffic import UnderTraffic

from clipper_agents.broker import EmbeddedBroker
from clipper_topics.catalogue import Catalogue

pytestmark = [pytest.mark.faults, pytest.mark.seeded, pytest.mark.timeout(1800)]

LASTS_S = 360.0
SHORT_S, SHORT_SEED = 30.0, 2128
"""Of the schedule that `make test` runs: kills of each kind, and freezes of two routers beyond their session."""
ROUTERS, HOSTS = 3, 2
SESSION_S = 10.0
QUERIES_PER_S = 150.0
EARLY_S, DELAY_S = 4.0, 30.0
PAUSE_S = 8.0
"""Between two faults at most."""
STALL_S = 0.4
POLL_S = 0.05
WEIGHTS = {
    "kill a router": 6, "kill a host": 3, "wipe a router": 3, "kill the supervisor": 1, "kill the broker": 1,
    "freeze a router": 6, "freeze two routers beyond their session": 2, "freeze a host": 3, "freeze the broker": 2,
}  # fmt: skip


def schedule(seed: int, lasts_s: float) -> Iterator[tuple[float, str, int, float]]:
    """The faults of a seed: how long after the one before, what, to which router or host, and for how long."""
    rng = random.Random(seed)
    while (lasts_s := lasts_s - (after_s := rng.uniform(1.0, PAUSE_S))) > 0.0:
        (what,) = rng.choices([*WEIGHTS], [*WEIGHTS.values()])
        longest_s = 1.5 * SESSION_S if what == "freeze a router" else 0.6 * SESSION_S
        for_s = rng.uniform(1.2, 1.6) * SESSION_S if "beyond" in what else rng.uniform(0.1, longest_s)
        yield after_s, what, rng.randrange(HOSTS if "host" in what else ROUTERS), for_s


class Chaos(UnderTraffic):
    """A deployment to which faults are done; `frozen` is what is frozen until when, and how it is resumed."""

    elsewhere = True

    def __init__(self, broker: EmbeddedBroker, deployment: Deployment, report, **asked: Any) -> None:
        super().__init__(deployment, report, **asked)
        self.broker, self.done = broker, Counter[str]()
        self.frozen = list[tuple[float, Callable[[], object]]]()
        self.callback(self.thaw)

    def start_up(self) -> None:
        self.up = self.serve(self.deployment.start("up", router_processes=ROUTERS))

    def wait(self, for_s: float) -> None:
        """Let time pass, and resume what was frozen for long enough."""
        until_s = time.monotonic() + for_s
        while (now_s := time.monotonic()) < until_s:
            for one in [one for one in self.frozen if one[0] <= now_s]:
                self.frozen.remove(one)
                one[1]()
            time.sleep(POLL_S)

    def do(self, what: str, number: int, for_s: float) -> None:
        """Do it; a process that is being started again is left alone."""
        names = f"router-{number}", f"router-{(number + 1) % ROUTERS}", f"host.slow-sum.1.{number}"
        router, other, host = (next(iter(running(self.up, f"--instance {name} ")), None) for name in names)
        acts: dict[str, tuple[Any, ...]] = {
            "kill a router": (_kill, router),
            "kill a host": (_kill, host),
            "wipe a router": (partial(self.wipe, self.deployment.data / names[0]), router),
            "kill the supervisor": (self.kill_supervisor,),
            "kill the broker": (self.kill_broker,),
            "freeze a router": (partial(self.freeze, for_s, self.freeze_router), router),
            "freeze a host": (partial(self.freeze, for_s, lambda one: os.kill(one.pid, signal.SIGSTOP)), host),
            "freeze the broker": (partial(self.freeze_broker, for_s),),
            "freeze two routers beyond their session": (partial(self.freeze_two, for_s), router, other),
        }
        act, *processes = acts[what]
        if all(one is not None and one.runs for one in processes):
            act(*processes)
            self.done[what] += 1

    def thaw(self) -> None:
        for _, resume in self.frozen:
            resume()
        self.frozen.clear()

    def wipe(self, data: Path, router: RunningProcess) -> None:
        if data.exists():
            self.lose(router, data)
        _kill(router)

    def kill_supervisor(self) -> None:
        self.thaw()  # a frozen router would hold the directory of the next one
        self.up.signal(signal.SIGKILL)
        self.up.ended()
        self.start_up()

    def kill_broker(self) -> None:
        self.broker.stop(kill=True)
        self.broker.start()

    def freeze(self, for_s: float, stop: Callable[[RunningProcess], object], process: RunningProcess) -> None:
        self.frozen.append((time.monotonic() + for_s, lambda: process.runs and os.kill(process.pid, signal.SIGCONT)))
        stop(process)

    def freeze_broker(self, for_s: float) -> None:
        self.broker.node.send(signal.SIGSTOP)
        self.frozen.append((time.monotonic() + for_s, partial(self.broker.node.send, signal.SIGCONT)))

    def freeze_two(self, for_s: float, *routers: RunningProcess) -> None:
        """With the broker frozen for a moment before, so that steps of both are on their way for longer."""
        self.freeze_broker(STALL_S)
        for one in routers:
            self.freeze(for_s, self.freeze_router, one)


def _kill(process: RunningProcess) -> None:
    os.kill(process.pid, signal.SIGKILL)


def test_a_random_schedule(broker, tmp_path, pytestconfig, short, fault_report):
    """Kills, freezes, wipes and compaction while feedback comes early, late and twice: each counts once."""
    seed = pytestconfig.getoption("--seed")
    if seed is None:
        seed = SHORT_SEED if short else random.SystemRandom().randrange(1_000_000)
    print(f"--seed {seed} repeats this schedule")  # noqa: T201 (shown when the test fails)
    configuration, slow = tmp_path / "kills.toml", 'name = "slow-sum"\n'
    configuration.write_text(CONFIGURATION.read_text().replace(slow, f"{slow}replicas = {HOSTS}\n"))
    deployment = Deployment.on(broker.connection, Catalogue(partitions=4), tmp_path, configuration)
    compact_often(deployment.client, deployment.catalogue.selection_changelog, segment_ms=1000)
    asked = dict(rate_per_s=QUERIES_PER_S, seed=seed, early_s=EARLY_S, delay_s=DELAY_S)
    with Chaos(broker, deployment, fault_report, **asked) as chaos:
        chaos.start_up()
        for after_s, *fault in schedule(seed, SHORT_S if short else LASTS_S):
            chaos.wait(after_s)
            chaos.do(*fault)
        chaos.thaw()
        learned = oracle.positions(oracle.table(chaos.client.read(deployment.catalogue.selection_changelog)))
        verdict = chaos.judged(chaos.up)
    done = ", ".join(f"{times} x {what}" for what, times in sorted(chaos.done.items()))
    note = f"seed {seed}: {done}; {sum(learned.values())} feedbacks read meanwhile"
    chaos.conclude("a random schedule", verdict, kills=chaos.done.total(), note=note)
