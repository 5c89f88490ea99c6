"""Calls that wait for an answer have it, or fail; none hangs, and none is remembered."""

import asyncio
import gc

import pytest

from clipper_stream.client.errors import ClientClosed, InvalidQuery
from clipper_stream.client.reader import Waiting
from clipper_topics.prediction import Prediction

A, B = (0, "a", "app"), (0, "b", "app")


def prediction(query_id, output=1, application="app"):
    return Prediction(query_id=query_id, application=application, output=output)


@pytest.fixture
def waiting():
    return Waiting()


async def test_an_answer_reaches_who_waits_for_it_and_the_first_one_counts(waiting):
    first, second = waiting.begin(A), waiting.begin(B)
    strangers = [(0, prediction("nobody")), (1, prediction("a")), (0, prediction("a", application="other"))]
    for partition, answer in ((0, prediction("b", 2)), (0, prediction("b", 3)), *strangers):
        waiting.resolve(partition, answer)
    assert not first.done()
    assert A in waiting
    assert ((await second).output, len(waiting)) == (2, 2)


async def test_one_id_has_one_waiting_call_until_that_ends(waiting):
    waiting.begin(A)
    with pytest.raises(InvalidQuery, match="'a' is being asked"):
        waiting.begin(A)
    waiting.end(A)
    assert len(waiting) == 0
    waiting.begin(A)


async def test_a_failure_reaches_every_call_now_and_later_with_the_first_reason(waiting):
    both = waiting.begin(A), waiting.begin(B)
    waiting.fail(lambda: ClientClosed("the first reason"))
    waiting.fail(lambda: ClientClosed("the second reason"))
    for future in both:
        with pytest.raises(ClientClosed, match="the first reason"):
            await future
    waiting.resolve(0, prediction("a"))
    with pytest.raises(ClientClosed, match="the first reason"):
        waiting.begin((0, "c", "app"))


async def test_a_failure_that_nobody_awaited_is_not_logged_as_lost(waiting):
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    waiting.begin(A)
    waiting.fail(lambda: ClientClosed("closed"))
    waiting.end(A)
    gc.collect()
    assert complaints == []
