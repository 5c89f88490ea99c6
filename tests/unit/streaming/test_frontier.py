"""Only the contiguous finished prefix of what was admitted is ever committed."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from clipper_agents.streaming.frontier import Frontier


@given(gaps=st.lists(st.integers(1, 4), max_size=30), seed=st.integers(0, 2**32))
def test_the_frontier_stands_after_the_finished_prefix_whatever_finishes_first(gaps, seed):
    random = Random(seed)
    offsets = [sum(gaps[: place + 1]) for place in range(len(gaps))]
    frontier, admitted, finished = Frontier(), [], set()
    todo = list(offsets)
    while todo or len(finished) < len(offsets):
        if todo and random.random() < 0.4:
            count = random.randint(1, 5)
            frontier.admit(todo[:count])
            admitted += todo[:count]
            todo = todo[count:]
        elif admitted:
            done = random.choices(admitted, k=random.randint(1, 3))  # some of them again
            finished |= set(done)
            frontier.finish(done)
        prefix = 0
        while prefix < len(admitted) and admitted[prefix] in finished:
            prefix += 1
        assert frontier.committable == (admitted[prefix - 1] + 1 if prefix else None)
        assert frontier.unfinished == len(admitted) - prefix
    assert not frontier._finished


def test_offsets_of_an_earlier_life_leave_nothing_behind():
    frontier = Frontier()
    frontier.finish([3, 4])
    frontier.admit([5, 6])
    frontier.finish([4])
    assert (frontier.committable, frontier.unfinished, frontier._finished) == (None, 2, set())
