from clipper_stream.query.request_tracker import SingleFlight


def test_only_the_first_asks():
    flight = SingleFlight()
    assert [flight.join("key", waiter) for waiter in (1, 2, 3)] == [True, False, False]


def test_everybody_is_answered_once_in_the_order_they_joined():
    flight = SingleFlight()
    for waiter in (3, 1, 2):
        flight.join("key", waiter)
    assert flight.resolve("key") == [3, 1, 2]
    assert flight.resolve("key") == []


def test_after_the_answer_the_next_asks_again():
    flight = SingleFlight()
    flight.join("key", 1)
    flight.resolve("key")
    assert flight.join("key", 2)


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
