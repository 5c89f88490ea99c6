"""The CLOCK cache against a textbook ring: an array with a hand and a bit a slot."""

from builders.cache_store import DictCache
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

ENTRY_BYTES = 3
keys = st.sampled_from([b"%d" % number for number in range(12)])
values = st.binary(max_size=9)
budgets = st.sampled_from([0, 6, 10, 14, 30, 60])  # an entry is of 4 to 14 bytes


class Ring:
    """Slots [key, value, used] with the hand before slot 0 of the list: what the hand passes goes to the end."""

    def __init__(self, budget_bytes):
        self.budget_bytes, self.slots = budget_bytes, []

    def slot(self, key):
        return next((slot for slot in self.slots if slot[0] == key), None)

    def size(self):
        return sum(len(key) + len(value) + ENTRY_BYTES for key, value, _ in self.slots)

    def get(self, key):
        slot = self.slot(key)
        if slot is None:
            return None
        slot[2] = True
        return slot[1]

    def put_all(self, pairs):
        for key, value in pairs:
            self.put(key, value, len(key) + len(value) + ENTRY_BYTES)

    def put(self, key, value, size):
        slot = self.slot(key)
        if size > self.budget_bytes:
            self.slots = [other for other in self.slots if other is not slot]
        elif slot:
            slot[1] = value
            self.turn(room=0)
        else:
            self.turn(room=size)
            self.slots.append([key, value, False])

    def turn(self, room):
        while self.size() + room > self.budget_bytes:
            slot = self.slots.pop(0)
            if slot[2]:
                self.slots.append([slot[0], slot[1], False])


class ClockMachine(RuleBasedStateMachine):
    @initialize(budget_bytes=budgets, entries=st.dictionaries(keys, values, max_size=6))
    def start(self, budget_bytes, entries):
        self.cache = DictCache(budget_bytes, entries, entry_bytes=ENTRY_BYTES)
        self.ring = Ring(budget_bytes)
        self.ring.put_all(entries.items())

    @rule(asked=st.lists(keys, max_size=5))
    def get(self, asked):
        assert self.cache.get(asked) == [self.ring.get(key) for key in asked]

    @rule(pairs=st.lists(st.tuples(keys, values), max_size=5))
    def put(self, pairs):
        self.cache.put(dict(pairs))
        self.ring.put_all(dict(pairs).items())

    @rule(budget_bytes=budgets)
    def restart(self, budget_bytes):
        self.ring = Ring(budget_bytes)
        self.ring.put_all(self.cache.values.items())
        self.cache = DictCache(budget_bytes, self.cache.values, entry_bytes=ENTRY_BYTES)

    @invariant()
    def the_values_are_those_on_the_ring(self):
        held = {key: value for key, value, _ in self.ring.slots}
        assert self.cache.values == held
        assert self.cache.entries.size_bytes == self.ring.size() <= self.ring.budget_bytes
        assert len(self.cache.entries) == len(held)


ClockMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
TestClockCache = ClockMachine.TestCase
