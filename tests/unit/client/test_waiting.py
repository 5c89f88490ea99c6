import asyncio

import pytest

from clipper_stream.client.errors import ClientClosed, InvalidQuery
from clipper_stream.client.reader import Waiting
from clipper_topics.prediction import Prediction


def prediction(query_id, output=1, application="app"):
    return Prediction(query_id=query_id, application=application, output=output)


def test_an_answer_reaches_who_waits_for_it_and_the_first_one_counts():
    async def run():
        waiting = Waiting()
        with waiting.answer((0, "a", "app")) as first, waiting.answer((0, "b", "app")) as second:
            waiting.resolve(0, prediction("b", 2))
            waiting.resolve(0, prediction("b", 3))
            waiting.resolve(0, prediction("nobody"))
            waiting.resolve(1, prediction("a"))
            waiting.resolve(0, prediction("a", application="other"))
            assert not first.done()
            assert (0, "a", "app") in waiting
            return (await second).output, len(waiting)

    assert asyncio.run(run()) == (2, 2)


def test_an_id_is_forgotten_however_the_wait_ends():
    async def run():
        waiting = Waiting()
        with pytest.raises(RuntimeError), waiting.answer((0, "a", "app")):
            raise RuntimeError
        with pytest.raises(TimeoutError), waiting.answer((0, "a", "app")) as answered:
            await asyncio.wait_for(answered, 0)
        return len(waiting)

    assert asyncio.run(run()) == 0


def test_one_id_has_one_waiting_call():
    async def run():
        waiting = Waiting()
        with (
            waiting.answer((0, "a", "app")),
            pytest.raises(InvalidQuery, match="'a' is being asked"),
            waiting.answer((0, "a", "app")),
        ):
            pass

    asyncio.run(run())


def test_a_failure_reaches_every_call_now_and_later_with_the_first_reason():
    async def run():
        waiting = Waiting()
        with waiting.answer((0, "a", "app")) as first, waiting.answer((0, "b", "app")) as second:
            waiting.fail(lambda: ClientClosed("the first reason"))
            waiting.fail(lambda: ClientClosed("the second reason"))
            for future in (first, second):
                with pytest.raises(ClientClosed, match="the first reason"):
                    await future
            waiting.resolve(0, prediction("a"))
        with pytest.raises(ClientClosed, match="the first reason"), waiting.answer("c"):
            pass

    asyncio.run(run())


def test_a_failure_that_nobody_awaited_is_not_logged_as_lost():
    complaints = []

    async def run():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        waiting = Waiting()
        with waiting.answer((0, "a", "app")):
            waiting.fail(lambda: ClientClosed("closed"))

    asyncio.run(run())
    assert complaints == []
