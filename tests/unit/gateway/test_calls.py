import asyncio
from types import SimpleNamespace

import pytest
from unit.gateway.rig import refused

from clipper_gateway.callers import ANYBODY, Caller, Shares
from clipper_gateway.calls import GRACE_S, Calls, PredictBody
from clipper_gateway.served_call import ServedCall
from clipper_stream.client.client import AskedQuery
from clipper_stream.client.client_records import prepare_query
from clipper_topics.codec import JSON
from clipper_topics.feedback import Feedback
from clipper_topics.manifests import ApplicationManifest
from clipper_topics.prediction import REFUSALS, Prediction

DIGITS = ApplicationManifest(name="digits", models=["svm:1"], objective_ms=100)


class StubPipeline:
    """A Kafka with one application, its own client: answers each query with its input, once it is let."""

    partitions = 4

    def __init__(self):
        self.client, self.deployed = self, SimpleNamespace(manifest={"digits": DIGITS}.__getitem__)
        self.history = self
        self.asked, self.given, self.looked_at = [], [], []
        self.let, self.is_asked = asyncio.Event(), asyncio.Event()
        self.let.set()
        self.logged, self.said = None, {}

    def check(self):
        """Kafka is there."""

    async def ask(self, query, *, timeout_s, key, headers):
        record = prepare_query(query, self.partitions, JSON, key)
        sent = asyncio.get_running_loop().create_future()
        said = {"output": query.input, "query_offset": len(self.asked), **self.said}
        sent.set_result(SimpleNamespace(offset=len(self.asked)))
        self.asked.append((timeout_s, record))
        self.is_asked.set()
        await self.let.wait()
        return AskedQuery(Prediction(query_id=record.query_id, application=query.application, **said), record, sent)

    async def give(self, feedback, *, key, headers):
        self.given.append(key)

    async def query_at(self, partition, offset):
        self.looked_at.append(offset)
        return self.logged


@pytest.fixture
async def pipeline():
    return StubPipeline()


@pytest.fixture
def calls(pipeline):
    return Calls(pipeline, Shares(), most_waiting=2, timeout_s=30.0)


def query(row=7, **options):
    return PredictBody(application="digits", input=row, **options)


ORDER = {"query_id": "order-7"}


async def asked(calls, row=7, caller=ANYBODY, *, timeout_s=None, **fields):
    call = ServedCall(caller=caller, timeout_s=timeout_s)
    return (await calls.predict(call, query(row, **fields))).output


async def waiting(pipeline, coroutine):
    pipeline.let.clear()
    pipeline.is_asked.clear()
    call = asyncio.ensure_future(coroutine)
    await pipeline.is_asked.wait()
    return call


async def test_a_query_is_waited_for_a_little_beyond_its_deadline(calls, pipeline):
    assert await asked(calls) == 7
    await asked(calls, deadline_ms=50)
    await asked(calls, timeout_s=0.5)
    assert [timeout_s for timeout_s, _ in pipeline.asked] == pytest.approx([0.1 + GRACE_S, 0.05 + GRACE_S, 0.5])


@pytest.mark.parametrize(("applications", "rights"), [({"other"}, {"predict"}), (None, {"read"})])
async def test_who_lacks_the_right_or_the_application_asks_nothing(calls, pipeline, applications, rights):
    await refused(asked(calls, caller=Caller(name="a", applications=applications, rights=rights)), 403)
    assert pipeline.asked == []


async def test_further_calls_than_may_wait_are_refused_with_a_time(calls, pipeline):
    waits = [await waiting(pipeline, asked(calls)) for _ in range(2)]
    assert (await refused(asked(calls), 429, "come again in")).headers["retry-after"] == "1"
    pipeline.let.set()
    await asyncio.gather(*waits)
    assert calls.none_waits.is_set()
    await asked(calls)


async def test_a_repeat_joins_the_first_call_and_another_body_is_refused(calls, pipeline):
    first = await waiting(pipeline, asked(calls, **ORDER))
    repeat = asyncio.ensure_future(asked(calls, **ORDER))
    other = asyncio.ensure_future(asked(calls, 8, **ORDER))
    pipeline.let.set()
    assert (await first) == (await repeat) == 7
    await refused(other, 422, "stands for another query")
    assert [record.key for _, record in pipeline.asked] == [b"order-7"]


async def test_a_repeat_behind_another_body_is_compared_with_the_recorded_one(calls, pipeline):
    """It was compared with whichever came first of those in flight: up to 16 of 25 right repeats were refused."""
    pipeline.said, pipeline.logged = {"query_offset": 99}, query(7, **ORDER)
    wrong = await waiting(pipeline, asked(calls, 8, **ORDER))
    right = [asyncio.ensure_future(asked(calls, 7, **ORDER)) for _ in range(5)]
    await asyncio.sleep(0)
    pipeline.let.set()
    await refused(wrong, 422, "stands for another query")
    assert [await one for one in right] == [7] * 5


async def test_a_call_of_an_own_id_goes_on_when_its_client_hangs_up(calls, pipeline):
    first = await waiting(pipeline, asked(calls, **ORDER))
    first.cancel()
    await asyncio.wait([first])
    again = asyncio.ensure_future(asked(calls, **ORDER))
    pipeline.let.set()
    assert await again == 7
    assert len(pipeline.asked) == 1


async def test_a_later_repeat_is_compared_with_the_first_query(calls, pipeline):
    pipeline.said, pipeline.logged = {"query_offset": 99}, query(**ORDER)
    assert await asked(calls, **ORDER) == 7
    assert await asked(calls, deadline_ms=10, **ORDER) == 7, "it may be in more of a hurry"
    for other in ({"row": 8}, {"context": "ada"}, {"models": ["svm:1"]}):
        await refused(asked(calls, **ORDER, **other), 422, "another query")
    assert pipeline.looked_at == [99] * 5
    pipeline.logged = None  # beyond the log's retention
    assert await asked(calls, 8, **ORDER) == 8


@pytest.mark.parametrize(("reason", "status"), [("late", 503), ("invalid_input", 400), ("unknown_model", 404)])
async def test_a_default_is_an_error_to_a_strict_call_and_of_a_query_at_fault(calls, pipeline, reason, status):
    pipeline.said = {"default": True, "reason": reason, "explanation": "nothing arrived"}
    for strict in (True, None) if reason in REFUSALS else (True,):
        assert (await refused(asked(calls, strict=strict), status, "nothing arrived")).reason == reason
    for strict in (False,) if reason in REFUSALS else (False, None):
        assert (await calls.predict(ServedCall(caller=ANYBODY), query(strict=strict))).default


async def test_feedback_of_a_limited_caller_names_its_application(calls, pipeline):
    caller = Caller(name="a", applications=frozenset({"digits"}), rights=frozenset({"feedback"}))
    call = ServedCall(caller=caller)
    await refused(calls.give(call, [Feedback(query_id="order-7", label=1)]), 400, "give application")
    await calls.give(call, [Feedback(query_id="order-7", application="digits", label=1)])
    assert pipeline.given == [b"order-7"]
