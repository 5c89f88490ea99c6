"""Sampled queries have spans, and no others have."""

import json
from types import SimpleNamespace

import pytest
from builders.kafka import record
from builders.query_router import application
from builders.spans import RecordedSpans, events
from opentelemetry.trace import SpanKind, StatusCode
from unit.router.rig import AT_S, settle

from clipper_agents.router.queries import decode_queries
from clipper_agents.router.query_traces import UNTRACED, QueryTraces
from clipper_topics.trace_context import TRACED_ROWS, traced_rows

TRACE = "0af7651916cd43dd8448eb211c80319c"


def context(number, sampled=True):
    return f"00-{TRACE}-{number:016x}-{'01' if sampled else '00'}".encode()


def asked(number, *values, sampled=True, age_s=0.0, **more):
    rows = {"input": [values[0]]} if len(values) == 1 else {"inputs": [[value] for value in values]}
    value = json.dumps({"query_id": f"q{number}", "application": "app", **rows, **more}).encode()
    headers = [("correlation-id", b"c"), ("Traceparent", context(number + 1, sampled))]
    return record(number, value, headers=headers, topic="queries", timestamp=round((AT_S - age_s) * 1000))


def several(count):
    return [asked(number, number) for number in range(count)]


class Path:
    """A router with traces, whose models double a row."""

    def __init__(self, make_rig, *records, **app):
        self.recorder = RecordedSpans()
        self.rig = make_rig(application("app", **app), recorder=self.recorder)
        self.traces, (batches, _) = self.rig.traces, decode_queries(records, 0, AT_S, self.rig.traces)
        self.requests = [*self.rig.ask(*batches).values()] if batches else []

    async def serve(self, *refs, **rows):
        """Have models answer, all of them unless told; the spans of what is in the log then, by query."""
        for request in self.requests:
            if request.ref in (refs or (request.ref,)):
                self.rig.answer(request, lambda row: 2 * row, **rows)
        await settle()
        named = self.recorder.named("process queries")
        return {span.attributes["clipper.query_id"]: span for span in named if "clipper.query_id" in span.attributes}

    def send(self, **outcome):
        """Have the one request sent, and Kafka say what became of it; the rows in its headers."""
        (request,) = self.requests
        headers, sent = self.traces.sending(request)
        sent(SimpleNamespace(**dict(cancelled=lambda: False, exception=lambda: None) | outcome))
        return traced_rows(headers)


@pytest.fixture
async def walk(make_rig):
    async def begun(*records, **app):
        path = Path(make_rig, *records, **app)
        await settle()
        return path

    return begun


async def test_only_what_is_sampled_has_a_span(walk):
    path = await walk(*(asked(number, number, sampled=number in (3, 7)) for number in range(10)))
    assert {*await path.serve()} == {"q3", "q7"}
    alone = await walk(asked(0, 1.0, sampled=False))
    assert (await alone.serve(), alone.recorder.all) == ({}, [])


def timeless(span):
    """A span without what differs from process to process."""
    places = ("messaging.kafka.offset", "clipper.prediction.offset")
    about = {name: value for name, value in span.attributes.items() if name not in places}
    return span.name, span.kind, span.parent.trace_id, span.status.status_code, events(span), about


async def test_a_query_has_the_same_span_among_others_and_alone(walk):
    exp3 = dict(refs=("a:1", "b:1"), policy="exp3")
    found = await (await walk(*several(8), **exp3)).serve()
    assert len(found) == 8
    for number, (query_id, span) in enumerate(found.items()):
        alone = await (await walk(asked(number, number), **exp3)).serve()
        assert timeless(span) == timeless(alone[query_id])


async def test_the_span_of_a_query_says_what_its_prediction_says_and_where_both_are(walk):
    path = await walk(asked(4, 5.0), asked(5, 6.0), refs=("a:1", "b:1"))
    path.traces.sending(path.requests[0])[1](SimpleNamespace(cancelled=lambda: False, exception=lambda: None))
    span = (await path.serve())["q5"]
    (prediction,) = [one for one in path.rig.predictions() if one.query_id == "q5"]
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, f"{6:016x}")
    assert (span.kind, span.status.status_code) == (SpanKind.CONSUMER, StatusCode.UNSET)
    assert dict(span.attributes) == {
        "clipper.application": "app", "clipper.query_id": "q5", "clipper.rows": 1,
        "clipper.revision": 1, "clipper.prediction.offset": 1,
        "messaging.system": "kafka", "messaging.operation.name": "process", "messaging.destination.name": "queries",
        "messaging.destination.partition.id": "0", "messaging.kafka.offset": 5,
    }  # fmt: skip
    assert {*events(span)} == {"decided", "request a:1", "output a:1", "output b:1", "answered"}
    assert prediction.predicted_at_ms == round(
        next(event.timestamp for event in span.events if event.name == "answered") / 1e6
    )
    decided = next(event.timestamp for event in span.events if event.name == "decided")
    assert span.start_time <= decided <= span.end_time


LATE = {"deadline_ms": 1, "age_s": 0.5}
REASONS = {"arrived_late": LATE, "unknown_model": {"models": ["z"]}, "invalid_input": {"input": "text"}}


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("count", [1, 8])
async def test_a_query_that_asks_nobody_has_its_reason_and_no_output(reason, count, walk):
    spans = await (await walk(*(asked(number, 1.0, **REASONS[reason]) for number in range(count)))).serve()
    assert len(spans) == count
    for span in spans.values():
        assert {*events(span)} == {"decided", "answered"}
        assert span.attributes["clipper.default.reason"] == reason


async def test_what_models_gave_is_told_apart_from_what_was_cached_or_is_missing(walk):
    path = await walk(asked(0, 1.0), refs=("a:1", "b:1"), policy="exp4")
    for request in path.requests:
        failed = {0: ("error", "no")} if request.ref == "b:1" else {}
        path.rig.answer(request, lambda row: 2 * row, failed=failed)
    span = (await path.serve("none"))["q0"]
    assert [one for one in events(span) if "output" in one] == ["output a:1", "no output b:1 error"]
    path.requests = [*path.rig.ask(*decode_queries([asked(1, 1.0)], 0, AT_S, path.traces)[0]).values()]
    span = (await path.serve())["q1"]
    assert {one for one in events(span) if "output" in one} == {"cached output a:1", "output b:1"}


@pytest.mark.parametrize("count", [3, 20])
async def test_a_request_names_the_rows_of_sampled_queries(count, walk):
    records = [asked(number, number / 2, sampled=number % 3 == 1) for number in range(count)]
    path = await walk(*records, asked(count, 107.0, 108.0, 109.0), refs=("a:1", "b:1"))
    expected = [*((number, [number / 2]) for number in range(1, count, 3)), (count, [107.0, 108.0, 109.0])]
    assert len(path.requests) == 2
    for request in path.requests:
        parts = [
            (span.attributes["messaging.kafka.offset"], request.rows[rows.start : rows.stop, 0].tolist())
            for rows, span in request.traced
        ]
        assert sorted(parts) == expected


async def test_what_is_asked_for_the_log_only_is_in_its_querys_trace(walk):
    path = await walk(asked(0, 1.0), shadows={"b:1": 1.0})
    parents = {rows.parent.span_id for request in path.requests for rows, _ in request.traced}
    assert len(path.requests) == 2
    assert parents == {(await path.serve("a:1"))["q0"].context.span_id}


async def test_the_span_of_a_query_is_the_parent_of_what_hosts_do(walk):
    path = await walk(asked(0, 1.0, 2.0), asked(1, 3.0))
    rows = path.send()
    assert [(one.start, one.stop) for one in rows] == [(0, 2), (2, 3)]
    spans = await path.serve()
    assert [one.parent.span_id for one in rows] == [spans[name].context.span_id for name in ("q0", "q1")]
    assert {one.parent.trace_id for one in rows} == {int(TRACE, 16)}


@pytest.mark.parametrize("outcome", [{"exception": lambda: OSError("gone")}, {"cancelled": lambda: True}])
async def test_a_request_that_kafka_does_not_take_is_told_as_that(outcome, walk):
    path = await walk(asked(0, 1.0))
    path.send(**outcome)
    assert "request a:1 not_stored" in events((await path.serve())["q0"])


async def test_a_record_that_holds_no_query_ends_with_an_error(walk):
    path = await walk(record(3, b"{", headers=[("traceparent", context(1))], topic="queries"))
    (span,) = path.recorder.all
    assert (span.attributes["error.type"], span.status.status_code) == ("undecodable", StatusCode.ERROR)
    assert (span.parent.span_id, span.attributes["messaging.kafka.offset"]) == (1, 3)


async def test_a_query_whose_partition_is_taken_ends_with_an_error_unless_it_is_recorded(walk):
    path = await walk(*several(8), asked(50, 61.0, 62.0))
    await path.serve(rows=(0, 2))  # of the one request, the first two rows
    recorded = await path.serve(rows=(2, 3), failed={2: ("error", "no")})
    assert {*recorded} == {"q0", "q1", "q2"}
    for _ in range(2):
        path.traces.drop(path.rig.router.traces())
    left = [span for span in path.recorder.all if span.attributes.get("error.type") == "partition_taken"]
    assert sorted(span.attributes["messaging.kafka.offset"] for span in left) == [*range(3, 8), 50]


async def test_a_sampled_query_is_the_example_of_its_latency(walk):
    path = await walk(asked(0, 1.0))
    await path.serve()
    series = path.rig.metrics.histogram("clipper_prediction_latency_seconds", "app", "model")
    (exemplar,) = (one.exemplar for family in series.collect() for one in family.samples if one.exemplar)
    assert (exemplar.labels, exemplar.value) == ({"trace_id": TRACE}, pytest.approx(0.1))


@pytest.mark.parametrize("traces", [UNTRACED, QueryTraces()])
def test_without_a_recorder_nothing_is_noted_whatever_is_sampled(traces):
    (batch,), _ = decode_queries(several(9), 0, AT_S, traces)
    assert (len(batch), batch.traces) == (9, {})
    assert not any(name == TRACED_ROWS for some in batch.echoed.values() for name, _ in some)
    assert traces.undecided == []


NOT_VALID = b"00-" + b"0" * 32 + b"-0000000000000001-01"


@pytest.mark.parametrize("other", [b"01", b"00-" + b"\xff" * 50 + b"01", NOT_VALID, b"1" * 900])
def test_a_context_of_another_form_is_as_if_it_was_not_there(other):
    recorder = RecordedSpans()
    ill = record(0, b'{"query_id": "q", "application": "app", "input": [1]}', headers=[("traceparent", other)])
    (batch,), _ = decode_queries([ill], 0, AT_S, QueryTraces(recorder))
    assert (batch.traces, recorder.all) == ({}, [])
