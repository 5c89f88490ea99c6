import asyncio
from unittest.mock import AsyncMock

import pytest
from builders.status import DIGITS, NOW_S, report
from unit.gateway.console.rig import declare, has_read
from unit.gateway.rig import NO_KAFKA

from clipper_agents.kafka.errors import KafkaUnreachable
from clipper_agents.status.figures import VersionSummary
from clipper_gateway.console import follower
from clipper_gateway.console.follower import LOOKED_TICKS, POINTS_A_SECOND, STATUSES_A_SECOND, TICK_AT_S, LiveView


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
    found = view.history.series(name, NOW_S - 60, NOW_S).values.get("queries_per_s", [])
    return [one for one in found if one is not None]


def test_pages_get_what_was_read(view):
    (summary,) = view.summaries()
    assert (summary.name, summary.queries_per_s) == ("digits", 10.0)
    assert view.status("digits").queries_per_s == 10.0
    assert view.status("nobody") is None
    assert "host host.rf.2.0 of model rf:2 failed: no module named shop" in "\n".join(view.reasons())
    assert view.summaries()[0].problems == 0, "made before anybody asked what is wrong"
    view.look()
    assert view.summaries()[0].problems == 3


def test_a_version_with_fewer_hosts_than_it_should_have_is_told(view):
    report(view.facts, "svm:1", "host.svm.1.1", "starting")
    assert "model svm:1 has 1 of 2 hosts" in "\n".join(view.reasons())


def test_what_several_look_at_is_made_once_a_second(view):
    for make in (view.summaries, view.models, view.reasons, lambda: view.status("digits")):
        made = make()
        assert make() is made
        view.look()
        assert make() is not made


def test_restarts_are_counted_while_hosts_are_followed(view):
    restarts = []
    for ago_s in (None, 1.0):
        if ago_s is not None:
            report(view.facts, "svm:1", "host.svm.1.1", "starting", ago_s=ago_s)
        view.look()
        restarts += [one.restarts for one in view.models() if isinstance(one, VersionSummary) and one.ref == "svm:1"]
    assert restarts == [0, 1]


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
@pytest.mark.parametrize(
    ("count", "seconds"), [(25, range(-10, 0)), (9, (-100, 0))], ids=["ten seconds", "seconds that were missed"]
)
async def test_each_application_has_a_point_in_each_ten_seconds(view, count, seconds):
    names = declare(view, count)
    for second in seconds:
        await view.keep(int(NOW_S) + second)
    assert [len(rates(view, name)) for name in names] == [1] * count
    assert rates(view, "digits") == [10.0]


async def test_of_many_applications_some_have_their_turn_each_second(view):
    names, counts = declare(view, 1_000), []
    for second in (-1, 0):
        await view.keep(int(NOW_S) + second)
        counts.append(sum(bool(rates(view, name)) for name in names))
    assert counts[1] - counts[0] == pytest.approx(POINTS_A_SECOND, abs=1)


async def test_what_is_wrong_is_found_in_turns_while_somebody_looks(view):
    declare(view, 3 * STATUSES_A_SECOND - 1, "rf:2")
    view.reasons()
    assert sum(one.problems for one in view.summaries()) == STATUSES_A_SECOND
    for second in range(3):
        await view.keep(int(NOW_S) - 3 + second)
    view.look()
    assert sum(one.problems for one in view.summaries()) == 3 * STATUSES_A_SECOND + 2, "one has three problems"
    for _ in range(LOOKED_TICKS):
        view.look()
    await view.keep(int(NOW_S))
    view.look()
    assert sum(one.problems for one in view.summaries()) == 0, "nobody has looked, so nobody knows"


# --- without a Kafka ------------------------------------------------------------------------------------------------
async def test_a_kafka_that_is_away_is_waited_for_and_told(fresh):
    running = asyncio.ensure_future(fresh.run())
    async with asyncio.timeout(30):
        while "127.0.0.1" not in fresh.stale_reason:
            await fresh.next_tick(fresh.tick)
    assert fresh.tick > 0, "seconds go on"
    assert (fresh.is_read, running.done()) == (False, False)
    running.cancel()
    await asyncio.wait([running])


def test_a_history_that_is_not_kept_is_told(tmp_path, open_history):
    (tmp_path / "file").write_text("")
    view = LiveView(*NO_KAFKA, open_history("file/history"), lambda: NOW_S)
    assert view.reasons()[0].startswith("the console keeps no history: ")
    assert view.summaries() == []
    assert DIGITS.name not in view.facts.declared.manifests.applications


async def forever(*_):
    await asyncio.Event().wait()


async def polls():
    await asyncio.sleep(0)


async def test_a_bug_in_rebuilding_is_not_kept_quiet(fresh, monkeypatch):
    tailer = AsyncMock(facts=fresh.facts, recent=fresh.recent, refused=(), poll=polls)
    tailer.__aenter__.return_value = tailer
    tailer.catch_up.return_value = ()
    for name, stand_in in {
        "watch_topics": forever,
        "readable_partitions": AsyncMock(return_value=()),
        "checked_partitions": lambda *_: 1,
        "DeploymentTailer": lambda *_, **__: tailer,
        "rebuild": AsyncMock(side_effect=LookupError("a bug")),
    }.items():
        monkeypatch.setattr(follower, name, stand_in)
    with pytest.raises(ExceptionGroup) as found:
        await asyncio.wait_for(fresh.run(), 5)
    assert found.group_contains(LookupError, match="a bug")


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
