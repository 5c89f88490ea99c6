"""More than it can do: memory is bounded, everybody is answered, and it recovers by itself."""

import time
from functools import partial

import numpy as np
import pytest
from e2e.programs import Program
from faults.deployment import OVERLOAD, Deployment
from faults.load import Asking, Tally, producer
from faults.watching import Watch

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.timeout(1500)]

HOST_ROWS_PER_S = 800
"""Sixteen rows in twenty milliseconds, one batch at a time."""
QUIET_PER_S, QUIET_S = 100, 10.0
PATIENT = b'{"application": "colocated", "input": [1, 2, 3], "deadline_ms": 600000}'


LOADS = {
    "overload": (5, 20.0, None),
    "twice what is sustained": (2, 20.0, None),
    "a burst beside half load": (2.5, 10.0, 0.5),
}
"""What is asked for so many seconds, and before, during and after it (absent: `QUIET_PER_S`), in parts of what is
sustained."""
MEMORY_MIB = 1_024
"""A router under the heaviest load; five thousand queries are open at most, the rest is what Kafka delivers at once."""
NORMAL_AGAIN_S, NORMAL_RATIO = 5.0, 0.99
"""So soon after an overload so many queries are as quick as before. The rest is not nothing: what was left for later is
worked off for minutes beside them, and a pause of the machine is a pause of each."""
COSTLY: dict[str, tuple[bytes, float]] = {
    "20 queries a second of a megabyte of empty maps": (
        b'{"application": "colocated", "input": [%s{}]}' % (330_000 * b"{},"), 20.0,
    ),
    "5,000 records a second that are no queries": (b'{"application": "colocated", "input": [1, 2', 5_000.0),
}  # fmt: skip
"""Value, and records a second, of what costs a careless router more than a query."""
IN_TIME_RATIO = 0.99


class Loaded:
    """`up`, which is asked more than it can answer."""

    def __init__(self, deployment: Deployment, up: Program) -> None:
        self.up, self.tally, self.ask = up, Tally(deployment), partial(Asking, deployment)
        self._pids = [up.pid, *(process.pid for process in up.children())]
        self.watch = Watch(deployment.client, deployment.catalogue.dead_letters, lambda: self._pids)
        self.deployment = deployment

    def sustained_per_s(self, queries: int) -> float:
        """What the router answers a second of a backlog, all of it by the model."""
        patient = producer(self.deployment)
        for _ in range(queries):
            patient.produce(self.deployment.catalogue.queries, PATIENT)
            patient.poll(0)
        patient.flush(60)
        began_s = time.monotonic()
        Tally(self.deployment).read_to(queries)
        return queries / (time.monotonic() - began_s)

    def check(self) -> None:
        assert self.watch.most_mib < MEMORY_MIB
        assert {process.pid for process in self.up.children()} <= {*self._pids}, "nobody was restarted"


@pytest.fixture
def loaded(kafka, catalogue, tmp_path):
    deployment = Deployment.on(kafka, catalogue, tmp_path, OVERLOAD)
    with deployment.start("up") as up:
        up.ready()
        yield Loaded(deployment, up)


@pytest.mark.parametrize("kind", LOADS)
@pytest.mark.parametrize("application", ["hosted", "colocated"])
def test_more_than_is_sustainable(application, kind, loaded, short, fault_report):
    (times, seconds, beside), tally, ask = LOADS[kind], loaded.tally, partial(loaded.ask, application)
    burst_s = 5.0 if short else seconds
    sustained = HOST_ROWS_PER_S if application == "hosted" else loaded.sustained_per_s(50_000)
    with loaded.watch:
        with ask(QUIET_PER_S if beside is None else beside * sustained):
            time.sleep(QUIET_S)
            began_s = time.time()
            with ask(times * sustained) as burst:
                time.sleep(burst_s)
            ended_s = time.time()
            tally.read_to(burst.asked)  # a backlog takes its time, but every query in it is answered
            time.sleep(QUIET_S)
            drained_s = time.time() - QUIET_S
        tally.read_all()
    offered_per_s = burst.asked / (ended_s - began_s)
    normal_ms = tally.p99_ms(began_s - QUIET_S / 2, began_s)
    abnormal, after = tally.abnormal(ended_s + NORMAL_AGAIN_S, 2 * normal_ms + 50)
    by_model = float(np.sum(~tally.is_default(began_s, ended_s)))
    note = (
        f"{burst_s:.0f} s of {offered_per_s:,.0f}/s for what sustains {sustained:,.0f}/s: "
        f"{by_model / burst_s:,.0f}/s by the model, defaults {dict(tally.reasons)}; "
        f"p99 {normal_ms:.0f} ms before, not normal from {NORMAL_AGAIN_S:.0f} s after on: {abnormal} of {after}"
    )
    case = f"{kind}, {'host' if application == 'hosted' else 'router'}"
    fault_report.add(case, tally.verdict(), memory_mib=loaded.watch.most_mib, note=note)
    assert not tally.lost
    assert not tally.differing
    assert tally.reasons.keys() <= {"late", "arrived_late", "overloaded"}
    assert tally.explained, "no default without an explanation"
    loaded.check()
    assert abnormal <= (1 - NORMAL_RATIO) * after
    assert not np.any(tally.is_default(drained_s + NORMAL_AGAIN_S, time.time()))
    if application == "hosted":
        assert by_model > 0.3 * sustained * burst_s, "a model that has too much to do still does what it can"


@pytest.mark.parametrize("what", COSTLY)
def test_bad_records_leave_the_time_and_the_memory_of_good_ones(what, loaded, short, fault_report):
    (value, rate_per_s), tally, ask = COSTLY[what], loaded.tally, partial(loaded.ask, "colocated")
    with loaded.watch, ask(QUIET_PER_S) as good:
        time.sleep(1.0)
        with ask(rate_per_s, value) as bad:
            time.sleep(2.0 if short else 10.0)
        time.sleep(1.0)
    invalid = bad.asked if value.endswith(b"}") else 0  # the others are dead letters
    tally.read_to(good.asked + invalid)
    late = sum(count for reason, count in tally.reasons.items() if reason != "invalid_input")
    p99_ms = tally.p99_ms(0, time.time())
    note = f"{late} of {good.asked} good queries late, p99 {p99_ms:.0f} ms, beside {bad.asked} others"
    fault_report.add(what, tally.verdict(), memory_mib=loaded.watch.most_mib, note=note)
    assert tally.reasons["invalid_input"] == invalid
    assert good.asked - late >= IN_TIME_RATIO * good.asked, note
    loaded.check()
