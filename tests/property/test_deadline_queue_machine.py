"""The deadline queue against a dictionary that is sorted anew at each step."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from clipper_stream.query.in_flight import DEAD_ENTRIES, DeadlineQueue

items = st.integers(0, 300) | st.sampled_from(["text", None])  # which need not be comparable
deadlines_s = st.integers(0, 50).map(float)


class DeadlineMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.queue, self.naive, self.pushed = DeadlineQueue(), {}, 0

    @rule(pairs=st.lists(st.tuples(deadlines_s, items), min_size=1, max_size=60))
    def push(self, pairs):
        for deadline_s, item in pairs:
            self.queue.push(deadline_s, item)
            self.pushed += 1
            self.naive[item] = (deadline_s, self.pushed)

    @rule(finished=st.lists(items, max_size=60))
    def discard(self, finished):
        for item in finished:
            self.queue.discard(item)
            self.naive.pop(item, None)

    @rule(now_s=deadlines_s)
    def pop_due(self, now_s):
        due = sorted((item for item, (at_s, _) in self.naive.items() if at_s <= now_s), key=self.naive.get)
        assert self.queue.pop_due(now_s) == due
        for item in due:
            del self.naive[item]

    @invariant()
    def the_next_deadline_is_the_earliest(self):
        assert self.queue.next_s == min((at_s for at_s, _ in self.naive.values()), default=None)
        assert len(self.queue) == len(self.naive)


DeadlineMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestDeadlineQueue = DeadlineMachine.TestCase


def test_memory_follows_the_items_that_wait_when_most_finish_early_or_one_moves_for_ever():
    queue = DeadlineQueue()
    for item in range(10_000):
        queue.push(1e9 + item, item)
        queue.discard(item - 10)
    for moment in range(10_000):
        queue.push(float(moment), "item")
    assert len(queue) == 11
    assert len(queue._heap) <= 2 * len(queue) + DEAD_ENTRIES
