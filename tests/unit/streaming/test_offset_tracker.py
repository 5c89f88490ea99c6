"""Only the contiguous finished prefix of what was admitted is ever committed."""

from itertools import accumulate, count
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from clipper_agents.streaming.offset_tracker import MOST_FINISHED, OffsetTracker


@given(gaps=st.lists(st.integers(1, 4), max_size=30), seed=st.integers(0, 2**32))
def test_the_frontier_stands_after_the_finished_prefix_whatever_finishes_first(gaps, seed):
    random, todo = Random(seed), [*accumulate(gaps)]
    tracker, admitted, finished, moved_to, expected = OffsetTracker(), [], set(), 0, None
    while todo or len(finished) < len(gaps):
        if todo and random.random() < 0.4:
            number = random.randint(1, 5)
            tracker.admit(todo[:number])
            admitted, todo = admitted + todo[:number], todo[number:]
        elif admitted:
            done = random.choices(admitted, k=random.randint(1, 3))  # some of them again
            finished |= set(done)
            tracker.finish(done)
        prefix = next((place for place, one in enumerate(admitted) if one not in finished), len(admitted))
        if prefix > moved_to:
            moved_to, expected = prefix, [*admitted, admitted[-1] + 1][prefix]
        assert tracker.committable == expected
        assert tracker.unfinished == len({*admitted} - finished)
    assert not tracker._runs[0].waiting


def test_one_that_waits_for_long_does_not_keep_those_that_finish_meanwhile():
    tracker = OffsetTracker()
    tracker.admit([0])
    for offset in range(1, 10 * MOST_FINISHED):
        tracker.admit([offset], at_ms=offset // 100)
        tracker.finish([offset])
    assert (tracker.committable, tracker.unfinished) == (None, 1)
    assert len(tracker._runs[0].waiting) <= MOST_FINISHED + 3
    assert len(tracker._times) == 1, "a time a second"
    tracker.finish([0])
    assert tracker.committable == 10 * MOST_FINISHED


def test_it_says_what_is_finished_and_a_time_that_nothing_open_is_older_than():
    tracker = OffsetTracker(10)
    assert (tracker.since_ms, tracker.is_finished(9), tracker.is_finished(10)) == (None, True, False)
    for first in (10, 20, 30):
        tracker.admit(range(first, first + 10), 1_000 * first)
    tracker.finish(range(10, 25))
    assert (tracker.since_ms, tracker.is_finished(24), tracker.is_finished(25)) == (20_000, True, False)
    assert (tracker.start, tracker.first) == (10, 40)
    tracker.skip_to(60)
    assert tracker.start == tracker.first, "nothing behind what was left is still to be received"
    tracker.admit(range(60, 70), 60_000)
    tracker.finish([*range(25, 40), *range(60, 70)])
    assert (tracker.since_ms, tracker.is_finished(45), tracker.is_finished(65)) == (30_000, False, True)
    tracker.admit_skipped(range(40, 60), 60)
    tracker.finish(range(40, 60))
    assert (tracker.since_ms, tracker.is_finished(45)) == (60_000, True)


def test_offsets_of_an_earlier_life_leave_nothing_behind():
    tracker = OffsetTracker()
    tracker.finish([3, 4])
    tracker.admit([5, 6])
    tracker.finish([4])
    assert (tracker.committable, tracker.unfinished) == (None, 2)


@given(
    st.lists(st.tuples(st.sampled_from(["admit", "leave", "read", "finish"]), st.integers(1, 6)), max_size=40),
    st.data(),
)
def test_it_stands_before_what_was_left_until_that_is_finished_too(steps, data):
    tracker, end, admitted, finished = OffsetTracker(), 0, [], set()
    for step, number in steps:
        if step == "admit":
            tracker.admit([*range(end, end + number)])
            admitted += range(end, end + number)
            end += number
        elif step == "leave":
            end += number
            tracker.skip_to(end)
        elif step == "read" and tracker.skipped_range is not None:
            first, upto = tracker.skipped_range
            some = [*range(first, min(upto, first + number))]
            kept = some[:: data.draw(st.integers(1, 2))]  # the others are markers
            tracker.admit_skipped(kept, some[-1] + 1)
            admitted += kept
            finished |= {*some} - {*kept}
        elif admitted:
            done = data.draw(st.lists(st.sampled_from(admitted), max_size=4))
            finished |= {*done}
            tracker.finish(done)
        prefix = next(offset for offset in count() if offset not in finished)
        holes = [one for one in range(prefix) if one not in admitted]
        assert (tracker.committable or 0) <= prefix
        assert (tracker.committable or 0) >= max((one for one in admitted if one < prefix), default=-1) + 1 or holes
        assert tracker.first == end
    while tracker.skipped_range is not None:
        first, upto = tracker.skipped_range
        tracker.admit_skipped([*range(first, upto)], upto)
        admitted += range(first, upto)
    tracker.finish(sorted(admitted))
    assert (tracker.unfinished, tracker.skipped_offsets) == (0, 0)
    if admitted:
        assert tracker.committable in {max(admitted) + 1, end}
