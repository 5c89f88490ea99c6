"""Sampled queries are noted on their way, in a block or alone, and no others are."""

import json
from types import SimpleNamespace

import pytest
from builders.kafka import record
from builders.query_router import NOW_S, application, make_router, outputs_of

from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.observability.query_notes import AnsweredQuery, GatheredOutputs, RecordedNote, SentRequest
from clipper_agents.router.outgoing_records import Outgoing, OutgoingBlock
from clipper_agents.router.queries import BLOCK_FROM, decode_queries
from clipper_agents.router.query_traces import UNTRACED, QueryTraces, rows_in_process
from clipper_topics.trace_context import TRACED_ROWS, header_of_rows, rows_in_header, trace_and_span

TRACE = "0af7651916cd43dd8448eb211c80319c"
PREDICTIONS = "clipper.predictions"
TWO_MODELS = dict(refs=("a:1", "b:1"), policy="exp4")


def context(number, sampled=True):
    return f"00-{TRACE}-{number:016x}-{'01' if sampled else '00'}".encode()


def asked(number, *values, sampled=True, age_s=0.0, **more):
    rows = {"input": [values[0]]} if len(values) == 1 else {"inputs": [[value] for value in values]}
    value = json.dumps({"query_id": f"q{number}", "application": "app", **rows, **more}).encode()
    headers = [("correlation-id", b"c"), ("Traceparent", context(number + 1, sampled))]
    return record(number, value, headers=headers, topic="queries", timestamp=round((NOW_S - age_s) * 1000))


def several(count):
    return [asked(number, number) for number in range(count)]


class Path:
    """A router with traces, whose models double a row, and which writes predictions to nowhere."""

    def __init__(self, *records, **app):
        self.notes, self.metrics = [], RouterMetrics()
        self.traces = QueryTraces(SimpleNamespace(put=self.notes.append), self.metrics)
        self.router = make_router(application("app", **app))
        self.decoded = decode_queries(records, 0, NOW_S, self.traces)
        effects = self.router.receive([*self.decoded.blocks, *self.decoded.queries], NOW_S)
        self.requests = effects.requests
        self.traces.decided(self.requests)
        self.record(effects)

    def serve(self, **outputs):
        pieces = [outputs_of(request, lambda row: 2 * row, **outputs) for request in self.requests]
        self.record(self.router.gather(pieces, NOW_S + 0.1))
        return self.of(AnsweredQuery)

    def record(self, effects):
        self.traces.answered(effects.answers, effects.block_answers)
        alone = [Outgoing(one.query, b"", "application/json", one) for one in effects.answers]
        outgoing = [*(OutgoingBlock(some, [b""] * len(some.indices)) for some in effects.block_answers), *alone]
        self.traces.recorded(PREDICTIONS, outgoing, range(100, 100 + sum(one.size for one in outgoing)))

    def of(self, kind):
        return [note for note in self.notes if isinstance(note, kind)]

    def sent(self, **outcome):
        """Have the one request sent; its headers, and its spans once Kafka has said what became of it."""
        (request,) = self.requests
        headers, sent = self.traces.sending(request, "requests.a.1")
        sent(SimpleNamespace(**dict(cancelled=lambda: False, exception=lambda: None) | outcome))
        return headers, [*self.of(SentRequest)[0].spans()]


def by_id(notes):
    return {note.query_id: note for note in notes}


def by_name(note):
    return {span.name: span for span in note.spans()}


def test_only_what_is_sampled_is_noted_in_a_block():
    path = Path(*(asked(number, number, sampled=number in (3, 7)) for number in range(10)))
    assert [len(block) for block in path.decoded.blocks] == [10]
    assert {*by_id(path.serve())} == {"q3", "q7"}


def timeless(note):
    """Spans without what differs from process to process."""
    place = "messaging.kafka.offset"
    about = [{name: value for name, value in span.attributes.items() if name != place} for span in note.spans()]
    return [(span.name, span.kind, span.trace_id, span.error) for span in note.spans()], about


def test_a_query_has_the_same_spans_in_a_block_and_alone():
    exp3 = dict(refs=("a:1", "b:1"), policy="exp3")
    together, alone = Path(*several(BLOCK_FROM), **exp3), Path(*several(BLOCK_FROM - 1), **exp3)
    assert (len(together.decoded.blocks), len(alone.decoded.blocks)) == (1, 0)
    found, others = by_id(together.serve()), by_id(alone.serve())
    assert (len(found), len(others)) == (BLOCK_FROM, BLOCK_FROM - 1)
    for query_id, other in others.items():
        assert timeless(found[query_id]) == timeless(other)


def test_the_spans_of_a_query_say_how_it_was_decided_and_where_it_is():
    (note,) = Path(asked(4, 5.0), **TWO_MODELS).serve()
    spans = by_name(note)
    decode, decide, combine, stored, whole = spans.values()
    assert [*spans] == ["decode", "decide", "combine", f"record {PREDICTIONS}", "process queries"]
    assert (whole.trace_id, whole.parent_id) == (TRACE, f"{5:016x}")
    assert {span.parent_id for span in (decode, decide, combine, stored)} == {whole.span_id}
    assert whole.attributes == {
        "clipper.application": "app", "clipper.query_id": "q4", "clipper.rows": 1, "clipper.default": False,
        "messaging.system": "kafka", "messaging.operation.name": "process", "messaging.operation.type": "process",
        "messaging.destination.name": "queries", "messaging.destination.partition.id": "0", "messaging.kafka.offset": 4,
    }  # fmt: skip
    decision = {"clipper.policy": "exp4", "clipper.revision": 1, "clipper.models": ["a:1", "b:1"]}
    assert decide.attributes == {**decision, "clipper.propensity": 1.0}
    assert combine.attributes["clipper.confidence"] == 1.0
    assert (stored.kind, stored.attributes["messaging.operation.name"]) == ("PRODUCER", "record")
    assert stored.attributes["messaging.kafka.offset"] == 100
    assert whole.start_ns <= decode.end_ns <= decide.end_ns <= combine.start_ns
    assert combine.end_ns <= stored.end_ns <= whole.end_ns


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("arrived_late", {"deadline_ms": 1, "age_s": 0.5}),
        ("unknown_model", {"models": ["z"]}),
        ("invalid_input", {"input": "text"}),
    ],
)
@pytest.mark.parametrize("count", [1, BLOCK_FROM], ids=["alone", "block"])
def test_a_query_that_asks_nobody_has_no_combination_and_its_reason(reason, changes, count):
    notes = Path(*(asked(number, 1.0, **changes) for number in range(count))).of(AnsweredQuery)
    assert len(notes) == count
    for spans in map(by_name, notes):
        assert "combine" not in spans
        assert spans["process queries"].attributes["clipper.default.reason"] == reason


@pytest.mark.parametrize("count", [3, 20], ids=["alone", "block"])
def test_a_request_names_the_rows_of_sampled_queries(count):
    records = [asked(number, number / 2, sampled=number % 3 == 1) for number in range(count)]
    path = Path(*records, asked(count, 107.0, 108.0, 109.0), **TWO_MODELS)
    expected = [*((number, [number / 2]) for number in range(1, count, 3)), (count, [107.0, 108.0, 109.0])]
    assert len(path.requests) == 2
    for request in path.requests:
        parts = [(part.trace.place[2], request.rows[part.start : part.stop, 0].tolist()) for part in request.traced]
        assert sorted(parts) == expected


def test_what_is_asked_for_the_log_only_is_named_as_that_and_recorded_in_its_querys_trace():
    path = Path(asked(0, 1.0), shadows={"b:1": 1.0})
    served = {request.ref: [part.is_served for part in request.traced] for request in path.requests}
    assert served == {"a:1": [True], "b:1": [False]}
    path.requests = path.requests[:1]
    (answer,) = path.serve()
    audits = path.router.expire(NOW_S + 10).audits
    path.traces.audited("audits", [Outgoing(one.query, b"", "application/json", one) for one in audits], [8], 0.5)
    ((span,),) = [note.spans() for note in path.of(RecordedNote)]
    assert (span.parent_id, span.name) == (answer.span_id, "record audits")


def test_the_span_of_a_request_is_the_parent_of_what_its_host_does():
    path = Path(asked(0, 1.0, 2.0), asked(1, 3.0))
    headers, spans = path.sent(result=lambda: SimpleNamespace(partition=2, offset=9))
    rows = rows_in_header(header_of_rows(headers))
    assert [(one.start, one.stop) for one in rows] == [(0, 2), (2, 3)]
    assert [trace_and_span(one.traceparent) for one in rows] == [(span.trace_id, span.span_id) for span in spans]
    answered = by_id(path.serve())
    assert [span.parent_id for span in spans] == [answered[name].span_id for name in ("q0", "q1")]
    assert [span.attributes["clipper.rows"] for span in spans] == [2, 1]
    assert {span.attributes["messaging.kafka.offset"] for span in spans} == {9}


@pytest.mark.parametrize("outcome", [{"exception": lambda: OSError("gone")}, {"cancelled": lambda: True}])
def test_a_request_that_kafka_does_not_take_is_an_error(outcome):
    (span,) = Path(asked(0, 1.0)).sent(**outcome)[1]
    assert span.error == "not_stored"


def test_rows_for_a_model_in_the_process_are_in_the_span_of_their_query():
    path = Path(asked(0, 1.0))
    (rows,) = rows_in_process(path.requests[0])
    assert trace_and_span(rows.traceparent) == (TRACE, path.serve()[0].span_id)


def test_outputs_are_processed_within_the_span_of_their_sending():
    path = Path(asked(0, 1.0))
    headers, _ = path.traces.sending(path.requests[0], "requests")
    path.traces.gathered([record(5, topic="outputs", headers=[("other", b""), *headers]), record(6)], 1)
    ((span,),) = [note.spans() for note in path.of(GatheredOutputs)]
    (rows,) = rows_in_header(header_of_rows(headers))
    assert (span.trace_id, span.parent_id) == trace_and_span(rows.traceparent)
    assert (span.name, span.attributes["messaging.kafka.offset"]) == ("process outputs", 5)


def test_a_record_that_holds_no_query_ends_with_an_error():
    (note,) = Path(record(3, b"{", headers=[("traceparent", context(1))], topic="queries")).notes
    (span,) = note.spans()
    assert (span.error, span.parent_id, span.attributes["messaging.kafka.offset"]) == ("undecodable", f"{1:016x}", 3)


def test_a_query_whose_partition_is_taken_ends_with_an_error_unless_it_is_recorded():
    path = Path(*several(BLOCK_FROM), asked(50, 61.0, 62.0))
    path.serve(rows=(0, 2))  # of the one request, the first two rows
    path.serve(rows=(2, 3), failed={2: ("error", "no")})  # a query that leaves the block
    assert {*by_id(path.of(AnsweredQuery))} == {"q0", "q1", "q2"}
    path.traces.drop(path.router.traces())
    left = [note.offset for note in path.notes if getattr(note, "error", "") == "partition_taken"]
    assert sorted(left) == [*range(3, BLOCK_FROM), 50]


def test_a_sampled_query_is_the_example_of_its_latency():
    path = Path(asked(0, 1.0))
    path.serve()
    series = path.metrics.families.histogram("clipper_prediction_latency_seconds", "app", "model")
    (exemplar,) = series.exemplars.values()
    assert (exemplar.labels, exemplar.value) == ({"trace_id": TRACE}, pytest.approx(0.1))


def test_without_a_sink_nothing_is_noted_whatever_is_sampled():
    decoded = decode_queries(several(BLOCK_FROM + 1), 0, NOW_S, UNTRACED)
    assert [block.traces for block in decoded.blocks] == [{}]
    assert not any(name == TRACED_ROWS for block in decoded.blocks for some in block.echoed for name, _ in some)
    assert UNTRACED.undecided == []
