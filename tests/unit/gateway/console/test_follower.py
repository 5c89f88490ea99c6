"""Does the view make what pages show once a second, whoever looks, and go on while no Kafka is there?"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
from builders.status import DIGITS, NOW_S, facts, recent, report

from clipper_agents.kafka.errors import KafkaUnreachable
from clipper_agents.status.figures import VersionSummary
from clipper_gateway.console import follower
from clipper_gateway.console.follower import LOOKED_TICKS, POINTS_A_SECOND, STATUSES_A_SECOND, LiveView
from clipper_gateway.console.history import SeriesHistory
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import key_of
from clipper_topics.manifests import ApplicationManifest

WITHIN_S = 30.0


@pytest.fixture
def view(tmp_path: Path) -> Iterator[LiveView]:
    """A view that has read the application `digits`, at a time that stands."""
    history = SeriesHistory.open(tmp_path / "history", lambda: NOW_S)
    found = LiveView(KafkaConnection(f"127.0.0.1:{free_port()}"), Catalogue(), history, lambda: NOW_S)
    found.facts, found.recent, found.is_read, found.stale_reason = facts(), recent(), True, ""
    yield found
    history.close()


def free_port() -> int:
    """One at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def declare(view: LiveView, count: int, model: str = "svm:1") -> None:
    """Applications without queries."""
    for number in range(count):
        one = ApplicationManifest(name=f"app-{number:04}", models=[model])
        view.facts.control(key_of(one), codec.applications.encode(one))


def rates(view: LiveView, name: str) -> list[float | None]:
    found = view.history.series(name, NOW_S - 60, NOW_S).values.get("queries_per_s", [])
    return [one for one in found if one is not None]


def test_pages_get_what_was_read(view: LiveView) -> None:
    (summary,) = view.summaries()
    assert (summary.name, summary.queries_per_s) == ("digits", 10.0)
    status = view.status("digits")
    assert status is not None
    assert status.queries_per_s == 10.0
    assert view.status("nobody") is None
    assert "host host.rf.2.0 of model rf:2 failed: no module named shop" in "\n".join(view.reasons())
    assert view.summaries()[0].problems == 0, "made before anybody asked what is wrong"
    view.look()
    assert view.summaries()[0].problems == 2


def test_a_version_with_fewer_hosts_than_it_should_have_is_told(view: LiveView) -> None:
    report(view.facts, "svm:1", "host.svm.1.1", "starting")
    assert "model svm:1 has 1 of 2 hosts" in "\n".join(view.reasons())


MADE: dict[str, Callable[[LiveView], object]] = {
    "summaries": LiveView.summaries,
    "models": LiveView.models,
    "reasons": LiveView.reasons,
    "status": lambda view: view.status("digits"),
}


@pytest.mark.parametrize("page", MADE)
def test_what_several_look_at_is_made_once_a_second(page: str, view: LiveView) -> None:
    made = MADE[page](view)
    assert MADE[page](view) is made
    view.look()
    assert MADE[page](view) is not made


def test_restarts_are_counted_while_hosts_are_followed(view: LiveView) -> None:
    def restarts() -> int:
        (found,) = [one.restarts for one in view.models() if isinstance(one, VersionSummary) and one.ref == "svm:1"]
        return found

    view.look()
    assert restarts() == 0
    report(view.facts, "svm:1", "host.svm.1.1", "starting", ago_s=1.0)
    view.look()
    assert restarts() == 1


async def test_whoever_waits_for_a_second_is_told(view: LiveView) -> None:
    waits = [asyncio.ensure_future(view.next_tick(number)) for number in (0, 0, 1)]
    await asyncio.sleep(0)
    view.look()
    assert await asyncio.gather(*waits[:2]) == [1, 1]
    assert not waits[2].done()
    view.look()
    assert await waits[2] == 2
    assert await view.next_tick(0) == 2


async def test_each_application_has_a_point_in_each_ten_seconds(view: LiveView) -> None:
    declare(view, 25)
    for second in range(10):
        await view.keep(int(NOW_S) - 10 + second)
    assert rates(view, "digits") == [10.0]
    assert [len(rates(view, f"app-{number:04}")) for number in range(25)] == [1] * 25


async def test_seconds_that_were_missed_are_made_up_for(view: LiveView) -> None:
    declare(view, 9)
    await view.keep(int(NOW_S) - 100)
    await view.keep(int(NOW_S))
    assert [len(rates(view, f"app-{number:04}")) for number in range(9)] == [1] * 9


async def test_of_many_applications_some_have_their_turn_each_second(view: LiveView) -> None:
    declare(view, 1_000)
    await view.keep(int(NOW_S) - 1)
    before = sum(bool(rates(view, f"app-{number:04}")) for number in range(1_000))
    await view.keep(int(NOW_S))
    after = sum(bool(rates(view, f"app-{number:04}")) for number in range(1_000))
    assert after - before == pytest.approx(POINTS_A_SECOND, abs=1)


async def test_what_is_wrong_is_found_in_turns_while_somebody_looks(view: LiveView) -> None:
    declare(view, 3 * STATUSES_A_SECOND - 1, "rf:2")
    view.reasons()
    assert sum(one.problems for one in view.summaries()) == STATUSES_A_SECOND
    for second in range(3):
        await view.keep(int(NOW_S) - 3 + second)
    view.look()
    assert sum(one.problems for one in view.summaries()) == 3 * STATUSES_A_SECOND + 1, "one has two problems"
    for _ in range(LOOKED_TICKS):
        view.look()
    await view.keep(int(NOW_S))
    view.look()
    assert sum(one.problems for one in view.summaries()) == 0, "nobody has looked, so nobody knows"


async def test_a_kafka_that_is_away_is_waited_for_and_told(view: LiveView) -> None:
    view.stale_reason, view.is_read = "", False
    running = asyncio.ensure_future(view.run())
    async with asyncio.timeout(WITHIN_S):
        seconds = [await view.next_tick(number) for number in range(3)]
        while "127.0.0.1" not in view.stale_reason:
            await view.next_tick(view.tick)
    assert seconds == [1, 2, 3], "seconds go on"
    assert not view.is_read
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


def test_a_history_that_is_not_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    history = SeriesHistory.open(tmp_path / "file" / "history", lambda: NOW_S)
    view = LiveView(KafkaConnection("127.0.0.1:1"), Catalogue(), history, lambda: NOW_S)
    assert view.reasons()[0].startswith("the console keeps no history: ")
    assert view.summaries() == []
    assert DIGITS.name not in view.facts.declared.manifests.applications


async def test_a_bug_in_rebuilding_is_not_kept_quiet(view: LiveView, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise LookupError("a bug")

    async def polls() -> None:
        await asyncio.sleep(0)

    tailer = AsyncMock(refused=0)
    tailer.__aenter__.return_value = tailer
    tailer.poll.side_effect = polls
    monkeypatch.setattr(follower, "readable_partitions", AsyncMock(return_value=()))
    monkeypatch.setattr(follower, "checked_partitions", lambda *_: 1)
    monkeypatch.setattr(follower, "DeploymentTailer", lambda *_, **__: tailer)
    monkeypatch.setattr(follower, "rebuild", fails)
    with pytest.raises(LookupError, match="a bug"):
        await asyncio.wait_for(view._read(), 5)


async def test_it_ends_at_once_also_while_an_attempt_to_follow_ends(
    view: LiveView, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise KafkaUnreachable("nobody is there")

    async def closes_slowly(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)

    monkeypatch.setattr(follower, "watch_topics", fails)
    monkeypatch.setattr(LiveView, "_read", closes_slowly)
    for turns in range(15):
        running = asyncio.ensure_future(view.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=5)
        assert done, f"cancelled after {turns} turns of the loop"
        assert running.cancelled()
