"""Is a history that was lost filled from what the logs still have, without harm to what is there?"""

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
from builders.past_logs import BEGAN_S, CATALOGUE, NOW_S, TRIED_S, FakeLogReader, facts, logs

from clipper_agents.kafka.reader import LogReader
from clipper_agents.status.past import MOST_OF_A_TIME, PastReader
from clipper_gateway.console.history import FINEST, RINGS, ApplicationSeries, SeriesHistory
from clipper_gateway.console.rebuild import fill, gaps


@pytest.fixture
def history(tmp_path: Path) -> Iterator[SeriesHistory]:
    found = SeriesHistory.open(tmp_path / "history", lambda: NOW_S)
    yield found
    found.close()


def rebuilt(history: SeriesHistory, reader: FakeLogReader) -> None:
    past = PastReader(cast("LogReader", reader), CATALOGUE, reader.partitions, facts())
    asyncio.run(fill(history, past, NOW_S, pause_ratio=0.0))


def series(history: SeriesHistory, hours: float) -> ApplicationSeries:
    """What there is once the next minute has begun."""
    history.add("digits", NOW_S, {}, {})
    return history.series("digits", NOW_S - hours * 3_600, NOW_S)


def known(column: list[float | None]) -> list[float]:
    return [one for one in column if one is not None]


def test_rates_and_latencies_are_those_of_the_logs(history: SeriesHistory) -> None:
    rebuilt(history, FakeLogReader(logs()))
    for hours, points in ((0.5, 179), (3.0, 179), (40.0, 18)):
        found = series(history, hours)
        rates = known(found.values["queries_per_s"])
        assert len(rates) == pytest.approx(points, abs=1)
        assert rates == pytest.approx([1.0] * len(rates), rel=0.01)
        assert known(found.values["feedback_per_s"]) == pytest.approx([0.5] * len(rates), rel=0.01)
        assert {*known(found.values["p50_ms"])} == {20.0}
        assert {*known(found.values["record_ms"])} == {5.0}


def test_what_was_learned_and_compared_is_of_its_time(history: SeriesHistory) -> None:
    rebuilt(history, FakeLogReader(logs()))
    found = series(history, 3.0)
    losses = dict(zip(found.times_s, found.versions["svm:1"]["loss"], strict=True))
    assert losses[BEGAN_S + 120 - BEGAN_S % 60] == pytest.approx(0.3, rel=0.01)
    assert losses[NOW_S - 60 - NOW_S % 60] == pytest.approx(0.1, rel=0.01)
    differences = [
        at_s
        for at_s, one in zip(found.times_s, found.versions["rf:2"]["difference"], strict=True)
        if one == pytest.approx(-0.1, rel=0.01)
    ]
    assert differences[0] == pytest.approx(TRIED_S, abs=60)
    assert "rf:2" in series(history, 0.1).versions
    assert not known(found.versions["rf:2"]["loss"][:100]), "it was not on trial then"


def test_of_many_records_a_sample_stands_for_all(history: SeriesHistory) -> None:
    reader, times = FakeLogReader(logs(every_s=0.02, hours=0.5)), len([*gaps(history, NOW_S)])
    rebuilt(history, reader)
    assert reader.read < 2 * MOST_OF_A_TIME * times
    rates = known(series(history, 10.0).values["queries_per_s"])
    assert rates[-3:-1] == pytest.approx([50.0, 50.0], rel=0.02)


def test_a_live_point_wins(history: SeriesHistory) -> None:
    history.add("digits", NOW_S - 100, {"queries_per_s": 7.0}, {})
    rebuilt(history, FakeLogReader(logs()))
    found = series(history, 0.1)
    rates = dict(zip(found.times_s, found.values["queries_per_s"], strict=True))
    assert (rates[NOW_S - 100], rates[NOW_S - 110]) == (7.0, pytest.approx(1.0))


def test_before_an_application_was_declared_nothing_is_read(history: SeriesHistory) -> None:
    rebuilt(history, FakeLogReader(logs()))
    found = series(history, 40.0)
    first = next(
        at_s for at_s, one in zip(found.times_s, found.values["queries_per_s"], strict=True) if one is not None
    )
    assert first == pytest.approx(BEGAN_S, abs=600)
    assert [*gaps(history, NOW_S)] == []


def test_one_that_was_broken_off_is_taken_up_where_it_ended(history: SeriesHistory) -> None:
    whole, broken = FakeLogReader(logs()), FakeLogReader(logs(), fails_after=5_000)
    with pytest.raises(TimeoutError):
        rebuilt(history, broken)
    left = [*gaps(history, NOW_S)]
    assert 0 < len(left) < sum(ring.points for ring in RINGS)
    assert (FINEST, NOW_S - 20) not in left, "the newest came first"
    rebuilt(history, whole)
    assert [*gaps(history, NOW_S)] == []
    assert len(known(series(history, 3.0).values["queries_per_s"])) == pytest.approx(179, abs=2)
    again = FakeLogReader(logs())
    rebuilt(history, again)
    assert again.read < 100, "totals and comparisons alone"


def test_gaps_are_named_from_the_newest_to_the_oldest_each_time_once(history: SeriesHistory) -> None:
    found = [*gaps(history, NOW_S)]
    starts = [at_s for _, at_s in found]
    assert starts == sorted(starts, reverse=True)
    assert starts[0] == NOW_S - FINEST.step_s
    assert all(at_s + ring.step_s >= after for (_, after), (ring, at_s) in pairwise(found)), "none is left out"
    assert starts[-1] == pytest.approx(NOW_S - RINGS[-1].span_s, abs=600)
    history.add("", found[0][1], {}, {})
    assert [*gaps(history, NOW_S)] == found[1:]
