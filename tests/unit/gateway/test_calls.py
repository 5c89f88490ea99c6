"""One call: rights, limits, repeats, and what its answer becomes."""

import asyncio
from types import SimpleNamespace

import pytest

from clipper_gateway.access import ANYBODY, Caller
from clipper_gateway.calls import GRACE_S, AskOptions, Calls, is_same_question
from clipper_gateway.errors import Refusal
from clipper_stream.client import BrokerUnavailable
from clipper_stream.client.client import AskedQuery
from clipper_stream.client.client_records import prepare_query
from clipper_topics.codec import JSON
from clipper_topics.feedback import Feedback
from clipper_topics.manifests import ApplicationManifest
from clipper_topics.prediction import Prediction
from clipper_topics.query import Query

DIGITS = ApplicationManifest(name="digits", models=["svm:1"], objective_ms=100)


class StubClient:
    """Answers each query with its first number, once it is let; keeps what it was asked."""

    partitions = 4

    def __init__(self):
        self.asked, self.given = [], []
        self.let = asyncio.Event()
        self.let.set()
        self.first_offset = None
        self.default = {}

    async def ask(self, query, *, timeout_s, key, headers, on_sent):
        record = prepare_query(query, self.partitions, JSON, key)
        offset = len(self.asked)
        self.asked.append((query, timeout_s, record, headers))
        sent = asyncio.get_running_loop().create_future()
        sent.set_result(SimpleNamespace(offset=offset))
        if on_sent is not None:
            on_sent(sent)
        await self.let.wait()
        first = offset if self.first_offset is None else self.first_offset
        said = {"output": query.input, "query_offset": first, **self.default}
        return AskedQuery(Prediction(query_id=record.query_id, application=query.application, **said), record, sent)

    async def give(self, feedback, *, key, headers):
        self.given.append((feedback, key))


class StubPipeline:
    """Kafka that is there, with one application, and a log of one query."""

    def __init__(self):
        self.client = StubClient()
        self.deployed = SimpleNamespace(applications={"digits": DIGITS}, manifest={"digits": DIGITS}.__getitem__)
        self.logged = None
        self.history = SimpleNamespace(query_at=self.query_at)
        self.looked_at = []

    async def query_at(self, partition, offset):
        self.looked_at.append((partition, offset))
        return self.logged

    def check(self):
        """Kafka is there."""


@pytest.fixture
def pipeline():
    return StubPipeline()


@pytest.fixture
def calls(pipeline):
    return Calls(pipeline, most_waiting=2, timeout_s=30.0)


def query(row=7, **options):
    return Query(application="digits", input=row, **options)


async def test_a_query_is_waited_for_a_little_beyond_its_deadline(calls, pipeline):
    assert (await calls.predict(ANYBODY, query(), AskOptions())).output == 7
    await calls.predict(ANYBODY, query(deadline_ms=50), AskOptions())
    await calls.predict(ANYBODY, query(), AskOptions(timeout_s=0.5))
    waits_s = [timeout_s for _, timeout_s, _, _ in pipeline.client.asked]
    assert waits_s == pytest.approx([0.1 + GRACE_S, 0.05 + GRACE_S, 0.5])


async def test_who_lacks_the_right_or_the_application_asks_nothing(calls, pipeline):
    for caller in (
        Caller(name="a", applications=frozenset({"other"}), rights=frozenset({"predict"})),
        Caller(name="b", applications=None, rights=frozenset({"read"})),
    ):
        with pytest.raises(Refusal) as refused:
            await calls.predict(caller, query(), AskOptions())
        assert refused.value.status == 403
    assert pipeline.client.asked == []


async def test_further_calls_than_may_wait_are_refused_with_a_time(calls, pipeline):
    pipeline.client.let.clear()
    waiting = [asyncio.ensure_future(calls.predict(ANYBODY, query(), AskOptions())) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Refusal, match="come again in") as refused:
        await calls.predict(ANYBODY, query(), AskOptions())
    assert (refused.value.status, refused.value.headers["retry-after"]) == (429, "1")
    pipeline.client.let.set()
    await asyncio.gather(*waiting)
    assert calls.none_waits.is_set()
    await calls.predict(ANYBODY, query(), AskOptions())


async def test_a_repeat_joins_the_first_call_and_another_body_is_refused(calls, pipeline):
    pipeline.client.let.clear()
    first = asyncio.ensure_future(calls.predict(ANYBODY, query(query_id="order-7"), AskOptions()))
    await asyncio.sleep(0)
    repeat = asyncio.ensure_future(calls.predict(ANYBODY, query(query_id="order-7"), AskOptions()))
    with pytest.raises(Refusal, match="stands for another query") as refused:
        await calls.predict(ANYBODY, query(8, query_id="order-7"), AskOptions())
    assert refused.value.status == 422
    pipeline.client.let.set()
    assert (await first) == (await repeat)
    assert len(pipeline.client.asked) == 1
    assert pipeline.client.asked[0][2].key == b"order-7"


async def test_a_call_of_an_own_id_goes_on_when_its_client_hangs_up(calls, pipeline):
    pipeline.client.let.clear()
    first = asyncio.ensure_future(calls.predict(ANYBODY, query(query_id="order-7"), AskOptions()))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    again = asyncio.ensure_future(calls.predict(ANYBODY, query(query_id="order-7"), AskOptions()))
    await asyncio.sleep(0)
    pipeline.client.let.set()
    assert (await again).output == 7
    assert len(pipeline.client.asked) == 1


async def test_a_later_repeat_is_compared_with_the_first_query(calls, pipeline):
    pipeline.client.first_offset, pipeline.logged = 99, query(query_id="order-7")
    assert (await calls.predict(ANYBODY, query(query_id="order-7"), AskOptions())).output == 7
    with pytest.raises(Refusal, match="another query"):
        await calls.predict(ANYBODY, query(8, query_id="order-7"), AskOptions())
    assert [offset for _, offset in pipeline.looked_at] == [99, 99]
    pipeline.logged = None  # beyond the log's retention
    await calls.predict(ANYBODY, query(8, query_id="order-7"), AskOptions())


async def test_a_strict_call_has_a_default_as_an_error(calls, pipeline):
    pipeline.client.default = {"default": True, "reason": "late", "explanation": "nothing arrived"}
    assert (await calls.predict(ANYBODY, query(), AskOptions())).default
    for reason, status in (("late", 503), ("invalid_input", 400)):
        pipeline.client.default["reason"] = reason
        with pytest.raises(Refusal, match="nothing arrived") as refused:
            await calls.predict(ANYBODY, query(), AskOptions(strict=True))
        assert (refused.value.status, refused.value.reason) == (status, reason)


async def test_a_query_to_be_answered_later_is_accepted_once_kafka_has_it(calls, pipeline):
    pipeline.client.let.clear()
    query_id, task = await calls.begin(ANYBODY, query(), AskOptions())
    partition = pipeline.client.asked[0][2].partition
    assert query_id.startswith(f"{partition}-")
    own_id, own = await calls.begin(ANYBODY, query(query_id="order-7"), AskOptions())
    again_id, again = await calls.begin(ANYBODY, query(query_id="order-7"), AskOptions())
    assert (own_id, again_id) == ("order-7", "order-7")
    assert own is again
    pipeline.client.let.set()
    assert [(await each).output for each in (task, own)] == [7, 7]


async def test_a_query_that_kafka_did_not_take_is_not_accepted(calls, pipeline):
    async def refused(query, *, timeout_s, key, headers, on_sent):
        sent = asyncio.get_running_loop().create_future()
        on_sent(sent)
        sent.set_exception(OSError("gone"))
        for _ in range(5):  # as the answer's future, whose task runs after the callbacks of this one
            await asyncio.sleep(0)
        raise BrokerUnavailable("Kafka did not take it")

    pipeline.client.ask = refused
    with pytest.raises(BrokerUnavailable):
        await calls.begin(ANYBODY, query(), AskOptions())


async def test_feedback_of_a_limited_caller_names_its_application(calls, pipeline):
    caller = Caller(name="a", applications=frozenset({"digits"}), rights=frozenset({"feedback"}))
    with pytest.raises(Refusal, match="give application"):
        await calls.give(caller, [Feedback(query_id="order-7", label=1)], [])
    await calls.give(caller, [Feedback(query_id="order-7", application="digits", label=1)], [])
    assert [key for _, key in pipeline.client.given] == [b"order-7"]


def test_a_repeat_may_be_in_more_of_a_hurry():
    assert is_same_question(query(deadline_ms=10), query())
    assert not is_same_question(query(context="ada"), query())
    assert not is_same_question(query(models=["svm:1"]), query())
