import asyncio
from itertools import pairwise

import pytest
from builders.past_logs import BEGAN_S, CATALOGUE, NOW_S, TRIED_S, FakeLogReader, facts, logs

from clipper_agents.status.past import MOST_OF_A_TIME, PastReader
from clipper_gateway.console.history import FINEST, RINGS
from clipper_gateway.console.rebuild import fill, gaps


def rebuilt(history, reader):
    past = PastReader(reader, CATALOGUE, reader.partitions, facts())
    asyncio.run(fill(history, past, NOW_S, pause_ratio=0.0))


def series(history, hours):
    """What there is once the next minute has begun."""
    history.add("digits", NOW_S, {}, {})
    return history.series("digits", NOW_S - hours * 3_600, NOW_S)


def known(found, column):
    """Values by their times."""
    return {at_s: one for at_s, one in zip(found.times_s, column, strict=True) if one is not None}


def rates(history, hours):
    found = series(history, hours)
    return known(found, found.values["queries_per_s"])


def test_what_was_read_learned_and_compared_is_that_of_the_logs(history):
    rebuilt(history, FakeLogReader(logs()))
    for hours, points in ((0.5, 179), (3.0, 179), (40.0, 18)):
        found = series(history, hours)
        values = {name: known(found, column) for name, column in found.values.items()}
        assert len(values["queries_per_s"]) == pytest.approx(points, abs=1)
        assert min(values["queries_per_s"]) >= BEGAN_S - 600, "nothing is read of before the application was declared"
        for name, one in {"queries_per_s": 1.0, "feedback_per_s": 0.5}.items():
            assert values[name] == pytest.approx(dict.fromkeys(values[name], one), rel=0.01)
        assert [{*values[name].values()} for name in ("p50_ms", "record_ms")] == [{20.0}, {5.0}]
    assert [*gaps(history, NOW_S)] == []
    found = series(history, 3.0)
    losses = known(found, found.versions["svm:1"]["loss"])
    assert losses[BEGAN_S + 120 - BEGAN_S % 60] == pytest.approx(0.3, rel=0.01)
    assert losses[NOW_S - 60 - NOW_S % 60] == pytest.approx(0.1, rel=0.01)
    differences = known(found, found.versions["rf:2"]["difference"])
    first = next(at_s for at_s, one in differences.items() if one == pytest.approx(-0.1, rel=0.01))
    assert first == pytest.approx(TRIED_S, abs=60)
    assert "rf:2" in series(history, 0.1).versions
    tried = known(found, found.versions["rf:2"]["loss"])
    assert min(tried, default=NOW_S) >= found.times_s[100], "it was not on trial before"


def test_of_many_records_a_sample_stands_for_all(history):
    reader, times = FakeLogReader(logs(every_s=0.02, hours=0.5)), len([*gaps(history, NOW_S)])
    rebuilt(history, reader)
    assert reader.read < 2 * MOST_OF_A_TIME * times
    assert [*rates(history, 10.0).values()][-3:-1] == pytest.approx([50.0, 50.0], rel=0.02)


def test_a_live_point_wins(history):
    history.add("digits", NOW_S - 100, {"queries_per_s": 7.0}, {})
    rebuilt(history, FakeLogReader(logs(hours=0.1)))
    found = rates(history, 0.1)
    assert (found[NOW_S - 100], found[NOW_S - 110]) == (7.0, pytest.approx(1.0))


def test_one_that_was_broken_off_is_taken_up_where_it_ended(history):
    kept = logs()
    whole, broken, again = FakeLogReader(kept), FakeLogReader(kept, fails_after=5_000), FakeLogReader(kept)
    with pytest.raises(TimeoutError):
        rebuilt(history, broken)
    left = [*gaps(history, NOW_S)]
    assert 0 < len(left) < sum(ring.points for ring in RINGS)
    assert (FINEST, NOW_S - 20) not in left, "the newest came first"
    rebuilt(history, whole)
    assert [*gaps(history, NOW_S)] == []
    assert len(rates(history, 3.0)) == pytest.approx(179, abs=2)
    rebuilt(history, again)
    assert again.read < 100, "totals and comparisons alone"


def test_gaps_are_named_from_the_newest_to_the_oldest_each_time_once(history):
    found = [*gaps(history, NOW_S)]
    starts = [at_s for _, at_s in found]
    assert starts == sorted(starts, reverse=True)
    assert starts[0] == NOW_S - FINEST.step_s
    assert all(at_s + ring.step_s >= after for (_, after), (ring, at_s) in pairwise(found)), "none is left out"
    assert starts[-1] == pytest.approx(NOW_S - RINGS[-1].span_s, abs=600)
    history.add("", found[0][1], {}, {})
    assert [*gaps(history, NOW_S)] == found[1:]
