import asyncio
from unittest.mock import AsyncMock

import pytest
from builders.metrics import served
from builders.status import DIGITS, NOW_S, report
from unit.gateway.console.rig import declare, has_read
from unit.gateway.rig import NO_KAFKA

from clipper_agents.kafka.errors import KafkaUnreachable
from clipper_agents.observability.metrics import ProcessMetrics
from clipper_agents.status import processes
from clipper_gateway.console import follower
from clipper_gateway.console.follower import LOOKED_TICKS, STATUSES_A_SECOND, TICK_AT_S, UNREAD, LiveView
from clipper_topics import codec
from clipper_topics.host_report import HostReport, report_key


@pytest.fixture
def fresh(clock, history):
    """A view that has read nothing, at a time that stands shortly before the next second is seen."""
    clock.now_s = NOW_S + TICK_AT_S - 0.01
    return LiveView(*NO_KAFKA, history, clock)


@pytest.fixture
def view(fresh, clock):
    clock.now_s = NOW_S
    return has_read(fresh)


def rates(view, name):
    found = view.history.series(name, NOW_S - 60).values.get("queries_per_s", [])
    return [one for one in found if one is not None]


def test_pages_get_what_was_read(view):
    (seen,) = view.applications()
    assert (seen.name, seen.queries_per_s) == ("digits", 10.0)
    assert view.application("digits").queries_per_s == 10.0
    assert view.application("nobody") is None
    assert "host host.rf.2.0 of model rf:2 failed: no module named shop" in "\n".join(map(str, view.problems()))
    assert len(view.problems("digits")) == 3
    assert view.problems("nobody") == ()


def test_a_version_with_fewer_hosts_than_it_should_have_is_told(view):
    report(view.facts, "svm:1", "host.svm.1.1", "starting")
    assert "model svm:1 has 1 of 2 hosts" in "\n".join(map(str, view.problems()))


def test_what_several_look_at_is_made_once_a_second(view):
    for make in (view.status, lambda: view.application("digits")):
        made = make()
        assert make() is made
        view.look()
        assert make() is not made


async def test_whoever_waits_for_a_second_is_told(view):
    waits = [asyncio.ensure_future(view.next_tick(number)) for number in (0, 0, 1)]
    await asyncio.sleep(0)
    view.look()
    assert await asyncio.gather(*waits[:2]) == [1, 1]
    assert not waits[2].done()
    view.look()
    assert await waits[2] == 2
    assert await view.next_tick(0) == 2


# --- points ---------------------------------------------------------------------------------------------------------
async def test_each_application_has_a_point_in_each_ten_seconds(view):
    names = declare(view, 19)
    for second in range(-10, 0):
        view.look()
        await view.keep(int(NOW_S) + second)
    assert [len(rates(view, name)) for name in names] == [1] * 19
    assert rates(view, "digits") == [10.0]


async def test_of_many_applications_some_have_their_turn_each_second_and_more_while_somebody_looks(view):
    declare(view, 999)
    counts = []
    for _ in range(2):
        view.look()
        await view.keep(int(NOW_S))
        counts.append(len(view._statuses))
    assert counts == [STATUSES_A_SECOND, 2 * STATUSES_A_SECOND]


async def test_what_nobody_looks_at_is_made_as_often_as_the_history_needs(view):
    names = [*declare(view, 19), "digits"]
    for _ in range(LOOKED_TICKS):
        view.look()
    for second in range(3):
        await view.keep(int(NOW_S) + second)
        assert len(view._statuses) == 2 * (second + 1)
        view.look()
    view.applications()
    assert {*view._statuses} == {*names}
    view.look()
    before = {name: tick for name, (tick, _) in view._statuses.items()}
    await view.keep(int(NOW_S) + 3)
    assert {name for name, (tick, _) in view._statuses.items() if tick > before[name]} == {*names}


# --- metrics of hosts -------------------------------------------------------------------------------------------------
def serve(view, name):
    """Declare a host of the first version of this name that serves metrics: a batch limit of 64 rows."""
    metrics = ProcessMetrics("host")
    metrics.gauge("clipper_batch_limit_rows", name, "1").set(64)
    said = HostReport(model=f"{name}:1", instance="h", state="ready", metrics=f"127.0.0.1:{served(metrics)}")
    view.facts.host(report_key(said.model, "h"), codec.host_reports.encode(said))


async def test_of_many_hosts_some_are_read_at_a_time_and_a_host_that_left_has_no_metrics(view, monkeypatch):
    monkeypatch.setattr(processes, "PAUSE_S", 0.0)
    names = [f"m{number}" for number in range(processes.MOST_READ + 1)]
    for name in names:
        serve(view, name)
    await view.metrics.read()
    assert view._builder().metrics.batch_limits.keys() == {f"{name}:1" for name in names}
    view.facts.host(report_key("m0:1", "h"), None)
    await view.metrics.read()
    assert view._builder().metrics.batch_limits.keys() == {f"{name}:1" for name in names[1:]}


# --- without a Kafka ------------------------------------------------------------------------------------------------
async def test_a_kafka_that_is_away_is_waited_for_and_told(fresh, caplog):
    running = asyncio.ensure_future(fresh.run())
    async with asyncio.timeout(30):
        while fresh.stale_reason != UNREAD:
            await fresh.next_tick(fresh.tick)
    assert fresh.tick > 0, "seconds go on"
    (said,) = [one.fields["error"] for one in caplog.records if "no topics" in one.getMessage()]
    assert "127.0.0.1" in said, "where Kafka is, is the operator's business"
    assert (fresh.is_read, running.done()) == (False, False)
    running.cancel()
    await asyncio.wait([running])


def test_a_history_that_is_not_kept_is_told(tmp_path, open_history):
    (tmp_path / "file").write_text("")
    view = LiveView(*NO_KAFKA, open_history("file/history"), lambda: NOW_S)
    assert view.problems()[0].cause.startswith("the console keeps no history: ")
    assert view.applications() == []
    assert DIGITS.name not in view.facts.declared.manifests.applications


async def test_it_ends_at_once_also_while_an_attempt_to_follow_ends(fresh, monkeypatch):
    async def closes_slowly(*_):
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)

    monkeypatch.setattr(follower, "watch_topics", AsyncMock(side_effect=KafkaUnreachable("nobody is there")))
    monkeypatch.setattr(follower, "readable_partitions", closes_slowly)
    for turns in range(15):
        running = asyncio.ensure_future(fresh.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=5)
        assert done, f"cancelled after {turns} turns of the loop"
        assert running.cancelled()


async def test_who_waits_for_a_second_does_not_keep_an_ending_view_from_being_cancelled(fresh):
    running = asyncio.ensure_future(fresh.run())
    for _ in range(5):
        await asyncio.sleep(0)
    fresh.end()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
