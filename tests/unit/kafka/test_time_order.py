from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from clipper_agents.kafka.time_order import TimeOrder

A, B = TopicPartition("predictions", 0), TopicPartition("feedback", 0)
EMPTY, ALL, NEVER = set(), {A, B}, float("inf")


def records(tp, times):
    return [SimpleNamespace(topic=tp.topic, partition=0, offset=n, timestamp=at_ms) for n, at_ms in enumerate(times)]


def released(order, at_end, sure_ms):
    return [(at_ms, one.topic[0], one.offset) for at_ms, one in order.release(at_end, sure_ms)]


@pytest.mark.parametrize(
    "steps",
    [
        [
            ({A: [10, 30]}, EMPTY, NEVER, []),  # the other partition was not read yet
            ({B: [20]}, EMPTY, NEVER, [(10, "p", 0), (20, "f", 0)]),
            ({}, {B}, 20, []),  # the brokers' clock had not passed 30
            ({}, {B}, 31, [(30, "p", 1)]),
        ],
        [({B: [10]}, ALL, 10, []), ({A: [10]}, ALL, 11, [(10, "p", 0), (10, "f", 0)])],
        [({B: [10], A: [10]}, ALL, NEVER, [(10, "p", 0), (10, "f", 0)])],
        [({A: [50, 5], B: [20]}, ALL, NEVER, [(20, "f", 0), (50, "p", 0), (50, "p", 1)])],
    ],
    ids=["what may be earlier", "the present millisecond", "a prediction and its feedback", "time that went back"],
)
def test_a_record_waits_until_nothing_can_come_before_it(steps):
    order = TimeOrder({A: 0, B: 1})
    for came, at_end, sure_ms, expected in steps:
        for tp, times in came.items():
            order.add(tp, records(tp, times))
        assert released(order, at_end, sure_ms) == expected


times = st.lists(st.integers(0, 30), max_size=25)


@given(of_a=times, of_b=times, cuts=st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 4)), max_size=30))
def test_whatever_is_fetched_first_the_order_is_the_same(of_a, of_b, cuts):
    left, at_once, piecewise = {A: records(A, of_a), B: records(B, of_b)}, *(TimeOrder({A: 0, B: 1}) for _ in "12")
    for tp, some in left.items():
        at_once.add(tp, some)
    expected, found = released(at_once, ALL, NEVER), []
    for tp, count in [*cuts, (A, 30), (B, 30)]:
        piecewise.add(tp, left[tp][:count])
        left[tp] = left[tp][count:]
        found += released(piecewise, {one for one in ALL if not left[one]}, NEVER)
    assert found == expected
    assert len(found) == len(of_a) + len(of_b)
