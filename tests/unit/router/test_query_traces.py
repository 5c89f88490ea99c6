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
SAMPLED, UNSAMPLED = "01", "00"


class Notes(list):
    """A sink that keeps what it is given."""

    put = list.append

    def of(self, kind):
        return [note for note in self if isinstance(note, kind)]


def context(number, flags=SAMPLED):
    return f"00-{TRACE}-{number:016x}-{flags}"


def asked(number, *values, flags=SAMPLED, age_s=0.0, **more):
    rows = {"input": [values[0]]} if len(values) == 1 else {"inputs": [[value] for value in values]}
    query = {"query_id": f"q{number}", "application": "app", **rows, **more}
    headers = [("correlation-id", b"c"), ("Traceparent", context(number + 1, flags).encode())]
    at_ms = round((NOW_S - age_s) * 1000)
    return record(number, json.dumps(query).encode(), headers=headers, topic="queries", timestamp=at_ms)


class Path:
    """A router with traces, whose models double a row, and which writes predictions to nowhere."""

    def __init__(self, *records, **app):
        self.notes, self.metrics = Notes(), RouterMetrics()
        self.traces = QueryTraces(self.notes, self.metrics)
        self.router = make_router(application("app", app.pop("refs", ("a:1",)), **app))
        self.decoded = decode_queries(records, 0, NOW_S, self.traces)
        self.effects = self.router.receive([*self.decoded.blocks, *self.decoded.queries], NOW_S)
        self.traces.decided(self.effects.requests)
        self.record(self.effects)

    def serve(self, now_s=NOW_S + 0.1, **outputs):
        pieces = [outputs_of(request, lambda row: 2 * row, **outputs) for request in self.effects.requests]
        self.record(self.router.gather(pieces, now_s))
        return self.notes.of(AnsweredQuery)

    def record(self, effects):
        self.traces.answered(effects.answers, effects.block_answers)
        alone = [Outgoing(one.query, b"", "application/json", one) for one in effects.answers]
        blocks = [OutgoingBlock(some, [b""] * len(some.indices)) for some in effects.block_answers]
        outgoing: list[Outgoing | OutgoingBlock] = [*blocks, *alone]
        self.traces.recorded(PREDICTIONS, outgoing, range(100, 100 + sum(one.size for one in outgoing)))


def by_id(notes):
    return {note.query_id: note for note in notes}


def test_only_what_is_sampled_is_noted_in_a_block():
    path = Path(*(asked(number, number, flags=SAMPLED if number in (3, 7) else UNSAMPLED) for number in range(10)))
    assert [len(block) for block in path.decoded.blocks] == [10]
    assert {note.query_id for note in path.serve()} == {"q3", "q7"}


def test_a_query_has_the_same_spans_in_a_block_and_alone():
    together = Path(*(asked(number, number) for number in range(BLOCK_FROM)), refs=("a:1", "b:1"), policy="exp3")
    alone = Path(*(asked(number, number) for number in range(BLOCK_FROM - 1)), refs=("a:1", "b:1"), policy="exp3")
    assert (len(together.decoded.blocks), len(alone.decoded.blocks)) == (1, 0)
    found, others = by_id(together.serve()), by_id(alone.serve())
    assert len(found) == len(others) + 1 == BLOCK_FROM
    for query_id, other in others.items():
        assert [timeless(span) for span in found[query_id].spans()] == [timeless(span) for span in other.spans()]


def timeless(span):
    """The span without what differs from process to process."""
    about = {name: value for name, value in span.attributes.items() if name != "messaging.kafka.offset"}
    return span.name, span.kind, span.trace_id, about, span.error


def test_the_spans_of_a_query_say_how_it_was_decided_and_where_it_is():
    (note,) = Path(asked(4, 5.0), refs=("a:1", "b:1"), policy="exp4").serve()
    spans = {span.name: span for span in note.spans()}
    assert [*spans] == ["decode", "decide", "combine", f"record {PREDICTIONS}", "process queries"]
    whole = spans["process queries"]
    assert (whole.trace_id, whole.parent_id) == (TRACE, f"{5:016x}")
    assert {span.parent_id for name, span in spans.items() if span is not whole} == {whole.span_id}
    assert whole.attributes == {
        "clipper.application": "app", "clipper.query_id": "q4", "clipper.rows": 1, "clipper.default": False,
        "messaging.system": "kafka", "messaging.operation.name": "process", "messaging.operation.type": "process",
        "messaging.destination.name": "queries", "messaging.destination.partition.id": "0", "messaging.kafka.offset": 4,
    }  # fmt: skip
    decision = {"clipper.policy": "exp4", "clipper.revision": 1, "clipper.models": ["a:1", "b:1"]}
    assert spans["decide"].attributes == {**decision, "clipper.propensity": 1.0}
    assert spans["combine"].attributes["clipper.confidence"] == 1.0
    stored = spans[f"record {PREDICTIONS}"]
    assert (stored.kind, stored.attributes["messaging.operation.name"]) == ("PRODUCER", "record")
    assert stored.attributes["messaging.kafka.offset"] == 100
    assert whole.start_ns <= spans["decode"].end_ns <= spans["decide"].end_ns <= spans["combine"].start_ns
    assert spans["combine"].end_ns <= stored.end_ns <= whole.end_ns


REFUSED = {
    "arrived_late": {"deadline_ms": 1},
    "unknown_model": {"models": ["z"]},
    "invalid_input": {"input": "text"},
}


@pytest.mark.parametrize("reason", REFUSED)
@pytest.mark.parametrize("count", [1, BLOCK_FROM], ids=["alone", "block"])
def test_a_query_that_asks_nobody_has_no_combination_and_its_reason(reason, count):
    age_s = 0.5 if reason == "arrived_late" else 0.0
    records = [asked(number, 1.0, age_s=age_s, **REFUSED[reason]) for number in range(count)]
    notes = Path(*records).notes.of(AnsweredQuery)
    assert len(notes) == count
    for note in notes:
        spans = {span.name: span for span in note.spans()}
        assert "combine" not in spans
        assert spans["process queries"].attributes["clipper.default.reason"] == reason


def rows_of(path, ref):
    (request,) = [one for one in path.effects.requests if one.ref == ref]
    return [
        (part.trace.place[2], [float(row[0]) for row in request.rows[part.start : part.stop]])
        for part in sorted(request.traced)
    ]


@pytest.mark.parametrize("count", [3, 20], ids=["alone", "block"])
def test_a_request_names_the_rows_of_sampled_queries(count):
    flags = [SAMPLED if number % 3 == 1 else UNSAMPLED for number in range(count)]
    records = [asked(number, number / 2, flags=flags[number]) for number in range(count)]
    path = Path(*records, asked(count, 107.0, 108.0, 109.0), refs=("a:1", "b:1"), policy="exp4")
    expected = [(number, [number / 2]) for number in range(count) if flags[number] == SAMPLED]
    for ref in ("a:1", "b:1"):
        assert sorted(rows_of(path, ref)) == [*expected, (count, [107.0, 108.0, 109.0])]


def test_what_is_asked_for_the_log_only_is_named_as_that():
    path = Path(asked(0, 1.0), shadows={"b:1": 1.0})
    served = {request.ref: [part.is_served for part in request.traced] for request in path.effects.requests}
    assert served == {"a:1": [True], "b:1": [False]}


def test_the_span_of_a_request_is_the_parent_of_what_its_host_does():
    path = Path(asked(0, 1.0, 2.0), asked(1, 3.0))
    (request,) = path.effects.requests
    headers, sent = path.traces.sending(request, "requests.a.1")
    sent(
        SimpleNamespace(
            cancelled=lambda: False, exception=lambda: None, result=lambda: SimpleNamespace(partition=2, offset=9)
        )
    )
    (note,) = path.notes.of(SentRequest)
    spans = [*note.spans()]
    rows = rows_in_header(header_of_rows(headers))
    assert [(one.start, one.stop) for one in rows] == [(0, 2), (2, 3)]
    assert [trace_and_span(one.traceparent) for one in rows] == [(span.trace_id, span.span_id) for span in spans]
    answered = by_id(path.serve())
    assert [span.parent_id for span in spans] == [answered[name].span_id for name in ("q0", "q1")]
    assert [span.attributes["clipper.rows"] for span in spans] == [2, 1]
    assert {span.attributes["messaging.kafka.offset"] for span in spans} == {9}


def test_a_request_that_kafka_does_not_take_is_an_error():
    path = Path(asked(0, 1.0))
    _, sent = path.traces.sending(path.effects.requests[0], "requests.a.1")
    sent(SimpleNamespace(cancelled=lambda: False, exception=lambda: OSError("gone")))
    (span,) = path.notes.of(SentRequest)[0].spans()
    assert span.error == "not_stored"


def test_rows_for_a_model_in_the_process_are_in_the_span_of_their_query():
    path = Path(asked(0, 1.0))
    (rows,) = rows_in_process(path.effects.requests[0])
    assert trace_and_span(rows.traceparent) == (TRACE, path.serve()[0].span_id)


def test_outputs_are_processed_within_the_span_of_their_sending():
    path = Path(asked(0, 1.0))
    headers, _ = path.traces.sending(path.effects.requests[0], "requests")
    path.traces.gathered([record(5, topic="outputs", headers=[("other", b""), *headers]), record(6)], 1)
    (note,) = path.notes.of(GatheredOutputs)
    (span,) = note.spans()
    (rows,) = rows_in_header(header_of_rows(headers))
    assert (span.trace_id, span.parent_id) == trace_and_span(rows.traceparent)
    assert (span.name, span.attributes["messaging.kafka.offset"]) == ("process outputs", 5)


def test_a_record_that_holds_no_query_ends_with_an_error():
    bad = record(3, b"{", headers=[("traceparent", context(1).encode())], topic="queries")
    (note,) = Path(bad).notes
    (span,) = note.spans()
    assert (span.error, span.parent_id, span.attributes["messaging.kafka.offset"]) == ("undecodable", f"{1:016x}", 3)


def test_a_query_whose_partition_is_taken_ends_with_an_error_unless_it_is_recorded():
    path = Path(*(asked(number, number) for number in range(BLOCK_FROM)), asked(50, 61.0, 62.0))
    path.serve(rows=(0, 2))  # of the one request, the first two rows
    path.serve(rows=(2, 3), failed={2: ("error", "no")})  # a query that leaves the block
    recorded = set(by_id(path.notes.of(AnsweredQuery)))
    path.traces.drop(path.router.traces())
    left = [note for note in path.notes if getattr(note, "error", "") == "partition_taken"]
    assert recorded == {"q0", "q1", "q2"}
    assert sorted(note.offset for note in left) == [*range(3, BLOCK_FROM), 50]


def test_an_audit_is_recorded_in_its_querys_trace():
    path = Path(asked(0, 1.0), shadows={"b:1": 1.0})
    (answer,) = path.serve()
    audits = path.router.expire(NOW_S + 10).audits
    outgoing = [Outgoing(one.query, b"", "application/json", one) for one in audits]
    path.traces.audited("audits", outgoing, [8], 0.5)
    for note in path.notes.of(RecordedNote):
        (span,) = note.spans()
        assert (span.parent_id, span.name) == (answer.span_id, "record audits")


def test_a_sampled_query_is_the_example_of_its_latency():
    path = Path(asked(0, 1.0))
    path.serve()
    series = path.metrics.families.histogram("clipper_prediction_latency_seconds", "app", "model")
    (exemplar,) = series.exemplars.values()
    assert (exemplar.labels, exemplar.value) == ({"trace_id": TRACE}, pytest.approx(0.1))


def test_without_a_sink_nothing_is_noted_whatever_is_sampled():
    decoded = decode_queries([asked(number, number) for number in range(BLOCK_FROM + 1)], 0, NOW_S, UNTRACED)
    assert [block.traces for block in decoded.blocks] == [{}]
    assert not any(name == TRACED_ROWS for block in decoded.blocks for some in block.echoed for name, _ in some)
    assert UNTRACED.undecided == []
