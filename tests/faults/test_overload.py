"""More than it can do: memory is bounded, everybody is answered, and it recovers by itself."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from confluent_kafka import Producer
from e2e.any_client import AnyClient
from e2e.programs import Program, environment_of
from faults.asking import Asking
from faults.report import FaultReport
from faults.tally import Tally
from faults.watching import Watch

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.timeout(1500)]

CONFIGURATION = Path(__file__).with_name("overload.toml")
HOST_ROWS_PER_S = 800
"""Sixteen rows in twenty milliseconds, one batch at a time."""
QUIET_PER_S, QUIET_S = 100, 10.0


class Load(NamedTuple):
    """What is asked for a time, and before, during and after it, both in parts of what is sustained."""

    times: float
    seconds: float
    beside: float | None = None
    """Absent: `QUIET_PER_S`."""


LOADS = {
    "overload": Load(5, 20.0),
    "twice what is sustained": Load(2, 20.0),
    "a burst beside half load": Load(2.5, 10.0, 0.5),
}
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


@pytest.fixture
def up(kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path) -> Iterator[Program]:
    environ = environment_of(kafka, catalogue)
    settings = ("--config", str(CONFIGURATION), "--set", f"router.data_dir={tmp_path / 'data'}")
    with Program("up", *settings, folder=tmp_path, environ=environ) as program:
        program.ready()
        yield program


def sustained_per_s(client: AnyClient, catalogue: Catalogue, queries: int) -> float:
    """What the router answers a second of a backlog, all of it by the model."""
    producer = Producer({"bootstrap.servers": client.bootstrap, "partitioner": "murmur2_random", "linger.ms": 5})
    for _ in range(queries):
        producer.produce(catalogue.queries, b'{"application": "colocated", "input": [1, 2, 3], "deadline_ms": 600000}')
        producer.poll(0)
    producer.flush(60)
    began_s = time.monotonic()
    Tally(client.bootstrap, catalogue.predictions).read_to(queries)
    return queries / (time.monotonic() - began_s)


@pytest.mark.parametrize("kind", LOADS)
@pytest.mark.parametrize("application", ["hosted", "colocated"])
def test_more_than_is_sustainable(application, kind, up, kafka, catalogue, short, fault_report: FaultReport):
    client, load = AnyClient(kafka.bootstrap), LOADS[kind]
    burst_s = 5.0 if short else load.seconds
    sustained = HOST_ROWS_PER_S if application == "hosted" else sustained_per_s(client, catalogue, 50_000)
    pids = [up.pid, *(process.pid for process in up.children())]
    ask = (kafka.bootstrap, catalogue.queries, application)
    tally = Tally(kafka.bootstrap, catalogue.predictions)
    with Watch(client, catalogue.dead_letters, lambda: pids) as watch:
        with Asking(*ask, QUIET_PER_S if load.beside is None else load.beside * sustained):
            time.sleep(QUIET_S)
            began_s = time.time()
            with Asking(*ask, load.times * sustained) as burst:
                time.sleep(burst_s)
            ended_s = time.time()
            tally.read_to(burst.asked)  # a backlog takes its time, but every query in it is answered
            time.sleep(QUIET_S)
            drained_s = time.time() - QUIET_S
        tally.read_all(catalogue.queries)
    offered_per_s = burst.asked / (ended_s - began_s)
    normal_ms = tally.p99_ms(began_s - QUIET_S / 2, began_s)
    abnormal, after = tally.abnormal(ended_s + NORMAL_AGAIN_S, 2 * normal_ms + 50)
    by_model = float(np.sum(~tally.is_default(began_s, ended_s)))
    fault_report.add(
        f"{kind}, {'host' if application == 'hosted' else 'router'}",
        tally.verdict(),
        memory_mib=watch.most_mib,
        note=(
            f"{burst_s:.0f} s of {offered_per_s:,.0f}/s for what sustains {sustained:,.0f}/s: "
            f"{by_model / burst_s:,.0f}/s by the model, defaults {dict(tally.reasons)}; "
            f"p99 {normal_ms:.0f} ms before, not normal from {NORMAL_AGAIN_S:.0f} s after on: {abnormal} of {after}"
        ),
    )
    assert not tally.lost
    assert not tally.differing
    assert tally.reasons.keys() <= {"late", "arrived_late", "overloaded"}
    assert tally.explained, "no default without an explanation"
    assert watch.most_mib < MEMORY_MIB
    assert abnormal <= (1 - NORMAL_RATIO) * after
    assert not np.any(tally.is_default(drained_s + NORMAL_AGAIN_S, time.time()))
    assert {process.pid for process in up.children()} <= {*pids}, "nobody was restarted"
    if application == "hosted":
        assert by_model > 0.3 * sustained * burst_s, "a model that has too much to do still does what it can"


@pytest.mark.parametrize("what", COSTLY)
def test_bad_records_leave_the_time_and_the_memory_of_good_ones(
    what, up, kafka, catalogue, short, fault_report: FaultReport
):
    client, (value, rate_per_s) = AnyClient(kafka.bootstrap), COSTLY[what]
    ask, tally = (kafka.bootstrap, catalogue.queries, "colocated"), Tally(kafka.bootstrap, catalogue.predictions)
    pids = [up.pid, *(process.pid for process in up.children())]
    with Watch(client, catalogue.dead_letters, lambda: pids) as watch, Asking(*ask, QUIET_PER_S) as good:
        time.sleep(1.0)
        with Asking(*ask, rate_per_s, value) as bad:
            time.sleep(2.0 if short else 10.0)
        time.sleep(1.0)
    invalid = bad.asked if value.endswith(b"}") else 0  # the others are dead letters
    tally.read_to(good.asked + invalid)
    late = sum(count for reason, count in tally.reasons.items() if reason != "invalid_input")
    p99_ms = tally.p99_ms(0, time.time())
    note = f"{late} of {good.asked} good queries late, p99 {p99_ms:.0f} ms, beside {bad.asked} others"
    fault_report.add(what, tally.verdict(), memory_mib=watch.most_mib, note=note)
    assert tally.reasons["invalid_input"] == invalid
    assert good.asked - late >= IN_TIME_RATIO * good.asked, note
    assert watch.most_mib < MEMORY_MIB
    assert {process.pid for process in up.children()} <= {*pids}, "nobody was restarted"
