import asyncio
from types import SimpleNamespace

import pytest
from unit.gateway.rig import refuses, settings_of
from unit.gateway.wires import HttpWire

from clipper_agents.status.query_history import LoggedFeedback, LoggedQuery, QueryHistory
from clipper_gateway import inference
from clipper_gateway.api import decoded
from clipper_gateway.callers import ANYBODY, Caller, Shares
from clipper_gateway.errors import refusal_of
from clipper_gateway.pipeline import Pipeline
from clipper_stream.client import PredictionTimeout, RecordTooLarge
from clipper_stream.client.client_records import place_feedback, prepare_query
from clipper_stream.errors import ClipperError
from clipper_topics import codec
from clipper_topics.codec import MSGPACK
from clipper_topics.feedback import Feedback
from clipper_topics.prediction import Prediction
from clipper_topics.query import Query

OF_TEXTS = Caller("shop", frozenset({"texts"}), frozenset({"read"}))


class History:
    """Has one query, `order-7`, and is asked for others without end."""

    def __init__(self):
        self.asked, self.is_asked, self.feedback = [], asyncio.Event(), ()

    async def read(self, query_id, application, partitions, *, since_ms):
        self.asked.append((query_id, application, partitions))
        self.is_asked.set()
        if query_id == "unknown":
            return QueryHistory()
        prediction = Prediction(query_id=query_id, application=application, output=3)
        is_answered = query_id != "open"
        found = LoggedQuery(0, 41, 7)
        return QueryHistory(query=found, prediction=prediction if is_answered else None, feedback=self.feedback)


@pytest.fixture
async def pipeline(tmp_path):
    pipeline = Pipeline(settings_of(tmp_path), bool, Shares())
    pipeline.history, pipeline.client = History(), SimpleNamespace(partitions=4)
    pipeline.check = bool
    return pipeline


@pytest.fixture
async def wire(pipeline):
    async with HttpWire() as wire:
        wire.calls.pipeline = pipeline
        yield wire


async def got(wire, path, **headers):
    found = await wire.client.get(path, headers=wire.headers | headers)
    return found.status_code, found.text


# --- answers later --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("query_id", "status"), [("order-7", 200), ("open", 202), ("unknown", 404)])
async def test_what_is_known_of_a_query_is_told(wire, query_id, status):
    assert (await got(wire, f"/v1/queries/{query_id}?application=digits"))[0] == status


async def test_a_wait_ends_with_the_gateway_by_what_is_known(wire, pipeline):
    """It held the end up for 20 s, and was a 500 with a traceback then."""
    waits = [
        asyncio.ensure_future(got(wire, f"/v1/queries/{one}?application=digits&wait_s=60"))
        for one in ("open", "unknown")
    ]
    while len(pipeline.history.asked) < 2:
        await asyncio.sleep(0)
    pipeline.ending.set()
    assert [(await one)[0] for one in waits] == [202, 404]


async def test_nobody_waits_for_a_client_that_is_gone(wire, pipeline):
    gone = asyncio.Event()

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    sent = asyncio.Queue()
    about = {"type": "http", "method": "GET", "path": "/v1/queries/open", "raw_path": b"", "scheme": "http"}
    about |= {
        "query_string": b"application=digits&wait_s=60",
        "headers": [(b"x-api-key", b"all")],
        "client": ("10.0.0.1", 1),
    }
    waits = asyncio.ensure_future(wire.client._transport.app(about, receive, sent.put))
    await pipeline.history.is_asked.wait()
    gone.set()
    await waits
    assert (await sent.get())["status"] == 202


async def test_waits_of_a_caller_are_bounded(wire):
    polls = wire.calls.shares.polls
    polls.take("no sign-in", polls.of_caller)
    assert (await got(wire, "/v1/queries/open?application=digits&wait_s=60"))[0] == 429


async def test_searches_of_a_caller_wait_for_their_turn(pipeline):
    share = pipeline._searches
    share.take("shop", share.of_caller)
    waits = asyncio.ensure_future(pipeline.read_query(OF_TEXTS, "unknown", "texts", None, 60.0))
    await pipeline.read_query(ANYBODY, "order-7", "texts", None, 60.0)
    assert not waits.done()
    share.give_back("shop", share.of_caller)
    await waits
    assert [asked[0] for asked in pipeline.history.asked] == ["order-7", "unknown"]


@pytest.mark.parametrize(
    ("caller", "query_id", "shown"),
    [(ANYBODY, "order-7", 2), (OF_TEXTS, "order-7", 1), (OF_TEXTS, f"3-{'0' * 32}", 2)],
)
async def test_feedback_that_may_be_about_another_applications_query_is_not_shown(pipeline, caller, query_id, shown):
    said = [Feedback(query_id=query_id, application=name, label=1) for name in (None, "texts")]
    pipeline.history.feedback = tuple(LoggedFeedback(one, 12, 7) for one in said)
    found = await pipeline.read_query(caller, query_id, "texts", None, 60.0)
    assert len(found.feedback) == shown


async def test_a_query_is_looked_for_where_it_may_be(pipeline):
    for context in (None, "user-42"):
        await pipeline.read_query(ANYBODY, "order-7", "texts", context, 60.0)
    assert [sorted(asked[2]) for asked in pipeline.history.asked] == [[0, 1, 2, 3], [0]]


# --- what there is --------------------------------------------------------------------------------------------------
async def test_nothing_is_listed_before_the_topics_were_read(wire, pipeline):
    """There was no application, 200 and `[]`."""
    wire.calls.applications = pipeline.deployed
    for path in ("/v1/applications", "/v1/models"):
        assert (await got(wire, path))[0] == 503
    pipeline.deployed.control.caught_up.set()
    assert await got(wire, "/v1/applications") == (200, "[]")


# --- what is wrong with a request -----------------------------------------------------------------------------------
@pytest.mark.parametrize("query_id", ["", ".", ".."])
def test_an_id_that_no_path_can_have_is_refused(query_id):
    for given in ((query_id, None), (None, query_id)):
        with refuses(400, "the query's id"):
            inference.own_id(*given)


@pytest.mark.parametrize("query_id", ["\u00e9", "a b", "a\tb", "\u00c3\u00a9"])
def test_an_id_in_a_header_is_visible_ascii(query_id):
    with refuses(400, "give such an id as query_id"):
        inference.own_id(query_id, None)
    assert inference.own_id(None, query_id) == query_id


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (r'"\ud800"', r"\\ud800 is half of a surrogate pair"),
        (r'"a\uDC00b"', r"\\uDC00 is half"),
        (r'"\ud83d\u0041"', r"\\ud83d is half"),
        (r'"\ud83d', "truncated|surrogate"),
        ("9" * 5_000, "out of range"),
    ],
)
def test_what_is_wrong_with_json_is_named(text, said):
    with refuses(400, said):
        decoded(codec.feedback, b'{"query_id":"a","label":' + text.encode() + b"}")
    assert decoded(codec.feedback, rb'{"query_id":"\ud83d\ude00","label":1}').query_id == "\U0001f600"


@pytest.mark.parametrize(
    "send",
    [
        lambda value: place_feedback(Feedback(query_id="a", label=value), b"a", 4, MSGPACK),
        lambda value: prepare_query(Query(application="a", input=[value]), 4, MSGPACK),
    ],
)
def test_an_integer_that_no_record_holds_is_named(send):
    with pytest.raises(ClipperError, match="has an integer of more than 64 bits, give it as text"):
        send(10**400)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PredictionTimeout("record 7 of prod.queries, group prod-router, lies in prod.dead-letters", "order-7"), 504),
        (RecordTooLarge("a record of 9 bytes for prod.queries at kafka-1.internal:9092"), 413),
    ],
)
def test_no_refusal_tells_topics_groups_or_addresses(error, status):
    refusal = refusal_of(error)
    assert refusal.status == status
    assert not any(secret in str(refusal) for secret in ("prod", "kafka-1", "router"))
