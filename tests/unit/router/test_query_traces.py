"""Sampled queries are noted on their way, and no others are."""

import json
from types import SimpleNamespace

import pytest
from builders.kafka import record
from builders.query_router import application
from unit.router.rig import AT_S, CATALOGUE, settle

from clipper_agents.observability.query_notes import AnsweredQuery, GatheredOutputs, RecordedNote, SentRequest
from clipper_agents.router.queries import decode_queries
from clipper_agents.router.query_traces import UNTRACED, colocated_rows
from clipper_topics.trace_context import TRACED_ROWS, header_of_rows, rows_in_header, trace_and_span

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
        self.notes = []
        self.rig = make_rig(application("app", **app), sink=SimpleNamespace(put=self.notes.append))
        self.traces, (batches, _) = self.rig.traces, decode_queries(records, 0, AT_S, self.rig.traces)
        self.requests = [*self.rig.ask(*batches).values()] if batches else []

    async def serve(self, *refs, **rows):
        """Have models answer, all of them unless told; the notes of what is in the log then, by query."""
        for request in self.requests:
            if request.ref in (refs or (request.ref,)):
                self.rig.answer(request, lambda row: 2 * row, **rows)
        await settle()
        return {note.query_id: note for note in self.of(AnsweredQuery)}

    def of(self, kind):
        return [note for note in self.notes if isinstance(note, kind)]

    def sent(self, **outcome):
        """Have the one request sent; its headers, and its spans once Kafka has said what became of it."""
        (request,) = self.requests
        headers, sent = self.traces.sending(request, "requests.a.1")
        sent(SimpleNamespace(**dict(cancelled=lambda: False, exception=lambda: None) | outcome))
        return headers, [*self.of(SentRequest)[0].spans()]


@pytest.fixture
async def walk(make_rig):
    async def begun(*records, **app):
        path = Path(make_rig, *records, **app)
        await settle()
        return path

    return begun


def by_name(note):
    return {span.name: span for span in note.spans()}


async def test_only_what_is_sampled_is_noted(walk):
    path = await walk(*(asked(number, number, sampled=number in (3, 7)) for number in range(10)))
    assert {*await path.serve()} == {"q3", "q7"}
    alone = await walk(asked(0, 1.0, sampled=False))
    assert (await alone.serve(), alone.notes) == ({}, [])


def timeless(note):
    """Spans without what differs from process to process."""
    place = "messaging.kafka.offset"
    about = [{name: value for name, value in span.attributes.items() if name != place} for span in note.spans()]
    return [(span.name, span.kind, span.trace_id, span.error) for span in note.spans()], about


async def test_a_query_has_the_same_spans_among_others_and_alone(walk):
    exp3 = dict(refs=("a:1", "b:1"), policy="exp3")
    found = await (await walk(*several(8), **exp3)).serve()
    assert len(found) == 8
    for number, (query_id, note) in enumerate(found.items()):
        alone = await (await walk(asked(number, number), **exp3)).serve()
        assert timeless(note) == timeless(alone[query_id])


async def test_the_spans_of_a_query_say_what_its_prediction_says_and_where_it_is(walk):
    path = await walk(asked(4, 5.0), refs=("a:1", "b:1"), policy="exp3")
    spans = by_name((await path.serve())["q4"])
    (prediction,) = path.rig.predictions()
    decode, decide, combine, stored, whole = spans.values()
    assert [*spans] == ["decode", "decide", "combine", f"record {CATALOGUE.predictions}", "process queries"]
    assert (whole.trace_id, whole.parent_id) == (TRACE, f"{5:016x}")
    assert {span.parent_id for span in (decode, decide, combine, stored)} == {whole.span_id}
    assert whole.attributes == {
        "clipper.application": "app", "clipper.query_id": "q4", "clipper.rows": 1, "clipper.default": False,
        "messaging.system": "kafka", "messaging.operation.name": "process", "messaging.operation.type": "process",
        "messaging.destination.name": "queries", "messaging.destination.partition.id": "0", "messaging.kafka.offset": 4,
    }  # fmt: skip
    models = [f"{one.model}:{one.version}" for one in prediction.models]
    assert decide.attributes == {
        "clipper.policy": prediction.policy.name, "clipper.revision": 1, "clipper.models": models,
        "clipper.propensity": prediction.served_propensity,
    }  # fmt: skip
    assert (prediction.policy.name, prediction.served_propensity) == ("exp3", 0.5)
    assert combine.attributes["clipper.confidence"] == prediction.confidence
    assert (stored.kind, stored.attributes["messaging.operation.name"]) == ("PRODUCER", "record")
    assert stored.attributes["messaging.kafka.offset"] == 0
    assert whole.start_ns <= decode.end_ns <= decide.end_ns <= combine.start_ns
    assert combine.end_ns <= stored.end_ns <= whole.end_ns


LATE = {"deadline_ms": 1, "age_s": 0.5}
REASONS = {"arrived_late": LATE, "unknown_model": {"models": ["z"]}, "invalid_input": {"input": "text"}}


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("count", [1, 8])
async def test_a_query_that_asks_nobody_has_no_combination_and_its_reason(reason, count, walk):
    notes = (await walk(*(asked(number, 1.0, **REASONS[reason]) for number in range(count)))).of(AnsweredQuery)
    assert len(notes) == count
    for spans in map(by_name, notes):
        assert "combine" not in spans
        assert spans["process queries"].attributes["clipper.default.reason"] == reason


@pytest.mark.parametrize("count", [3, 20])
async def test_a_request_names_the_rows_of_sampled_queries(count, walk):
    records = [asked(number, number / 2, sampled=number % 3 == 1) for number in range(count)]
    path = await walk(*records, asked(count, 107.0, 108.0, 109.0), refs=("a:1", "b:1"))
    expected = [*((number, [number / 2]) for number in range(1, count, 3)), (count, [107.0, 108.0, 109.0])]
    assert len(path.requests) == 2
    for request in path.requests:
        parts = [(part.trace.place[2], request.rows[part.start : part.stop, 0].tolist()) for part in request.traced]
        assert sorted(parts) == expected


async def test_what_is_asked_for_the_log_only_is_named_as_that_and_recorded_in_its_querys_trace(walk):
    path = await walk(asked(0, 1.0), shadows={"b:1": 1.0})
    served = {request.ref: [part.is_served for part in request.traced] for request in path.requests}
    assert served == {"a:1": [True], "b:1": [False]}
    answer = (await path.serve("a:1"))["q0"]
    await path.serve("b:1")
    ((span,),) = [note.spans() for note in path.of(RecordedNote)]
    assert (span.parent_id, span.name) == (answer.span_id, f"record {CATALOGUE.audits}")


async def test_the_span_of_a_request_is_the_parent_of_what_its_host_does(walk):
    path = await walk(asked(0, 1.0, 2.0), asked(1, 3.0))
    headers, spans = path.sent(result=lambda: SimpleNamespace(partition=2, offset=9))
    rows = rows_in_header(header_of_rows(headers))
    assert [(one.start, one.stop) for one in rows] == [(0, 2), (2, 3)]
    assert [trace_and_span(one.traceparent) for one in rows] == [(span.trace_id, span.span_id) for span in spans]
    answered = await path.serve()
    queries = [answered[name].span_id for name in ("q0", "q1")]
    assert [span.parent_id for span in spans] == queries
    in_process = [trace_and_span(one.traceparent) for one in colocated_rows(path.requests[0])]
    assert in_process == [(TRACE, query) for query in queries]
    assert [span.attributes["clipper.rows"] for span in spans] == [2, 1]
    assert {span.attributes["messaging.kafka.offset"] for span in spans} == {9}


@pytest.mark.parametrize("outcome", [{"exception": lambda: OSError("gone")}, {"cancelled": lambda: True}])
async def test_a_request_that_kafka_does_not_take_is_an_error(outcome, walk):
    (span,) = (await walk(asked(0, 1.0))).sent(**outcome)[1]
    assert span.error == "not_stored"


async def test_outputs_are_processed_within_the_span_of_their_sending(walk):
    path = await walk(asked(0, 1.0))
    headers, _ = path.traces.sending(path.requests[0], "requests")
    path.traces.gathered([record(5, topic="outputs", headers=[("other", b""), *headers]), record(6)], 1)
    ((span,),) = [note.spans() for note in path.of(GatheredOutputs)]
    (rows,) = rows_in_header(header_of_rows(headers))
    assert (span.trace_id, span.parent_id) == trace_and_span(rows.traceparent)
    assert (span.name, span.attributes["messaging.kafka.offset"]) == ("process outputs", 5)


async def test_a_record_that_holds_no_query_ends_with_an_error(walk):
    (note,) = (await walk(record(3, b"{", headers=[("traceparent", context(1))], topic="queries"))).notes
    (span,) = note.spans()
    assert (span.error, span.parent_id, span.attributes["messaging.kafka.offset"]) == ("undecodable", f"{1:016x}", 3)


async def test_a_query_whose_partition_is_taken_ends_with_an_error_unless_it_is_recorded(walk):
    path = await walk(*several(8), asked(50, 61.0, 62.0))
    await path.serve(rows=(0, 2))  # of the one request, the first two rows
    recorded = await path.serve(rows=(2, 3), failed={2: ("error", "no")})
    assert {*recorded} == {"q0", "q1", "q2"}
    path.traces.drop(path.rig.router.traces())
    left = [note.offset for note in path.notes if getattr(note, "error", "") == "partition_taken"]
    assert sorted(left) == [*range(3, 8), 50]


async def test_a_sampled_query_is_the_example_of_its_latency(walk):
    path = await walk(asked(0, 1.0))
    await path.serve()
    series = path.rig.metrics.histogram("clipper_prediction_latency_seconds", "app", "model")
    (exemplar,) = (one.exemplar for family in series.collect() for one in family.samples if one.exemplar)
    assert (exemplar.labels, exemplar.value) == ({"trace_id": TRACE}, pytest.approx(0.1))


def test_without_a_sink_nothing_is_noted_whatever_is_sampled():
    (batch,), _ = decode_queries(several(9), 0, AT_S, UNTRACED)
    assert (len(batch), batch.traces) == (9, {})
    assert not any(name == TRACED_ROWS for some in batch.echoed.values() for name, _ in some)
    assert UNTRACED.undecided == []
