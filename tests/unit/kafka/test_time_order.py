"""One order of records, whatever was fetched first."""

from types import SimpleNamespace

from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from clipper_agents.kafka.time_order import TimeOrder

A, B = TopicPartition("predictions", 0), TopicPartition("feedback", 0)
RANKS = {A: 0, B: 1}
NEVER = float("inf")


def record(tp, offset, at_ms):
    return SimpleNamespace(topic=tp.topic, partition=tp.partition, offset=offset, timestamp=at_ms)


def places(released):
    return [(at_ms, one.topic, one.offset) for at_ms, one in released]


def test_a_record_waits_until_nothing_can_come_before_it():
    order = TimeOrder(RANKS)
    order.add(A, [record(A, 0, 10), record(A, 1, 30)])
    assert places(order.release(set(), NEVER)) == [], "the other partition was not read yet"
    order.add(B, [record(B, 0, 20)])
    assert places(order.release(set(), NEVER)) == [(10, "predictions", 0), (20, "feedback", 0)]
    assert places(order.release({B}, 20)) == [], "the brokers' clock had not passed 30"
    assert places(order.release({B}, 31)) == [(30, "predictions", 1)]


def test_of_one_millisecond_a_prediction_comes_before_its_feedback():
    order = TimeOrder(RANKS)
    order.add(B, [record(B, 0, 10)])
    order.add(A, [record(A, 0, 10)])
    assert places(order.release({A, B}, NEVER)) == [(10, "predictions", 0), (10, "feedback", 0)]


def test_a_record_of_the_brokers_present_millisecond_waits_for_others():
    order = TimeOrder(RANKS)
    order.add(B, [record(B, 0, 10)])
    assert places(order.release({A, B}, 10)) == []
    order.add(A, [record(A, 0, 10)])
    assert places(order.release({A, B}, 11)) == [(10, "predictions", 0), (10, "feedback", 0)]


def test_within_a_partition_time_does_not_go_back():
    order = TimeOrder(RANKS)
    order.add(A, [record(A, 0, 50), record(A, 1, 5)])
    order.add(B, [record(B, 0, 20)])
    expected = [(20, "feedback", 0), (50, "predictions", 0), (50, "predictions", 1)]
    assert places(order.release({A, B}, NEVER)) == expected


times = st.lists(st.integers(0, 30), max_size=25)


@given(of_a=times, of_b=times, cuts=st.lists(st.tuples(st.booleans(), st.integers(1, 4)), max_size=30))
def test_whatever_is_fetched_first_the_order_is_the_same(of_a, of_b, cuts):
    logs = {A: [record(A, *one) for one in enumerate(of_a)], B: [record(B, *one) for one in enumerate(of_b)]}
    at_once = TimeOrder(RANKS)
    for tp, records in logs.items():
        at_once.add(tp, records)
    expected = places(at_once.release({A, B}, NEVER))
    piecewise, found = TimeOrder(RANKS), []
    left = {tp: list(records) for tp, records in logs.items()}
    for first, count in [*cuts, (True, 30), (False, 30)]:
        tp = A if first else B
        piecewise.add(tp, left[tp][:count])
        left[tp] = left[tp][count:]
        found += places(piecewise.release({one for one in RANKS if not left[one]}, NEVER))
    assert found == expected
    assert len(found) == len(of_a) + len(of_b)
