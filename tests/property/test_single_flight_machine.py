"""In-flight rows against a list of (key, waiter) pairs."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from clipper_stream.query.request_tracker import SingleFlight

keys = st.sampled_from("abcd")
waiters = st.integers(0, 6)


class SingleFlightMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.flight, self.pairs = SingleFlight(), []

    def waiting(self, key):
        return [waiter for waited, waiter in self.pairs if waited == key]

    @rule(key=keys, waiter=waiters)
    def join(self, key, waiter):
        if waiter not in self.waiting(key):
            assert self.flight.join(key, waiter) == (not self.waiting(key))
            self.pairs.append((key, waiter))

    @rule(key=keys)
    def resolve(self, key):
        assert self.flight.resolve(key) == self.waiting(key)
        self.pairs = [pair for pair in self.pairs if pair[0] != key]

    @invariant()
    def a_key_is_in_flight_exactly_while_somebody_waits(self):
        assert len(self.flight) == len({key for key, _ in self.pairs})
        assert all(self.flight.first(key) == next(iter(self.waiting(key)), None) for key in "abcd")


SingleFlightMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestSingleFlight = SingleFlightMachine.TestCase


def test_many_waiters_of_one_key_are_not_compared_with_one_another():
    compared = []

    class Waiter:
        def __eq__(self, other):
            compared.append(other)
            return self is other

        __hash__ = object.__hash__

    flight = SingleFlight()
    waiters = [Waiter() for _ in range(2_000)]
    assert [flight.join("row", waiter) for waiter in waiters].count(True) == 1
    assert flight.resolve("row") == waiters
    assert len(compared) <= 2 * len(waiters)
