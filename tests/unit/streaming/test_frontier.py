"""Only the contiguous finished prefix of what was admitted is ever committed."""

from itertools import accumulate, count
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from clipper_agents.streaming.frontier import MOST_FINISHED, Frontier


@given(gaps=st.lists(st.integers(1, 4), max_size=30), seed=st.integers(0, 2**32))
def test_the_frontier_stands_after_the_finished_prefix_whatever_finishes_first(gaps, seed):
    random, todo = Random(seed), [*accumulate(gaps)]
    frontier, admitted, finished, moved_to, expected = Frontier(), [], set(), 0, None
    while todo or len(finished) < len(gaps):
        if todo and random.random() < 0.4:
            number = random.randint(1, 5)
            frontier.admit(todo[:number])
            admitted, todo = admitted + todo[:number], todo[number:]
        elif admitted:
            done = random.choices(admitted, k=random.randint(1, 3))  # some of them again
            finished |= set(done)
            frontier.finish(done)
        prefix = next((place for place, one in enumerate(admitted) if one not in finished), len(admitted))
        if prefix > moved_to:
            moved_to, expected = prefix, [*admitted, admitted[-1] + 1][prefix]
        assert frontier.committable == expected
        assert frontier.unfinished == len({*admitted} - finished)
    assert not frontier._runs[0].waiting


def test_one_that_waits_for_long_does_not_keep_those_that_finish_meanwhile():
    frontier = Frontier()
    frontier.admit([0])
    for offset in range(1, 10 * MOST_FINISHED):
        frontier.admit([offset], at_ms=offset // 100)
        frontier.finish([offset])
    assert (frontier.committable, frontier.unfinished) == (None, 1)
    assert len(frontier._runs[0].waiting) <= MOST_FINISHED + 3
    assert len(frontier._times) == 1, "a time a second"
    frontier.finish([0])
    assert frontier.committable == 10 * MOST_FINISHED


def test_it_says_what_is_finished_and_a_time_that_nothing_open_is_older_than():
    frontier = Frontier(10)
    assert (frontier.since_ms, frontier.is_finished(9), frontier.is_finished(10)) == (None, True, False)
    for first in (10, 20, 30):
        frontier.admit(range(first, first + 10), 1_000 * first)
    frontier.finish(range(10, 25))
    assert (frontier.since_ms, frontier.is_finished(24), frontier.is_finished(25)) == (20_000, True, False)
    assert (frontier.start, frontier.first) == (10, 40)
    frontier.leave(60)
    assert frontier.start == frontier.first, "nothing behind what was left is still to be received"
    frontier.admit(range(60, 70), 60_000)
    frontier.finish([*range(25, 40), *range(60, 70)])
    assert (frontier.since_ms, frontier.is_finished(45), frontier.is_finished(65)) == (30_000, False, True)
    frontier.admit_left(range(40, 60), 60)
    frontier.finish(range(40, 60))
    assert (frontier.since_ms, frontier.is_finished(45)) == (60_000, True)


def test_offsets_of_an_earlier_life_leave_nothing_behind():
    frontier = Frontier()
    frontier.finish([3, 4])
    frontier.admit([5, 6])
    frontier.finish([4])
    assert (frontier.committable, frontier.unfinished) == (None, 2)


@given(
    st.lists(st.tuples(st.sampled_from(["admit", "leave", "read", "finish"]), st.integers(1, 6)), max_size=40),
    st.data(),
)
def test_it_stands_before_what_was_left_until_that_is_finished_too(steps, data):
    frontier, end, admitted, finished = Frontier(), 0, [], set()
    for step, number in steps:
        if step == "admit":
            frontier.admit([*range(end, end + number)])
            admitted += range(end, end + number)
            end += number
        elif step == "leave":
            end += number
            frontier.leave(end)
        elif step == "read" and frontier.left is not None:
            first, upto = frontier.left
            some = [*range(first, min(upto, first + number))]
            kept = some[:: data.draw(st.integers(1, 2))]  # the others are markers
            frontier.admit_left(kept, some[-1] + 1)
            admitted += kept
            finished |= {*some} - {*kept}
        elif admitted:
            done = data.draw(st.lists(st.sampled_from(admitted), max_size=4))
            finished |= {*done}
            frontier.finish(done)
        prefix = next(offset for offset in count() if offset not in finished)
        holes = [one for one in range(prefix) if one not in admitted]
        assert (frontier.committable or 0) <= prefix
        assert (frontier.committable or 0) >= max((one for one in admitted if one < prefix), default=-1) + 1 or holes
        assert frontier.first == end
    while frontier.left is not None:
        first, upto = frontier.left
        frontier.admit_left([*range(first, upto)], upto)
        admitted += range(first, upto)
    frontier.finish(sorted(admitted))
    assert (frontier.unfinished, frontier.left_offsets) == (0, 0)
    if admitted:
        assert frontier.committable in {max(admitted) + 1, end}
