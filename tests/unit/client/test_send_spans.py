"""A client's records carry the context that is current, and a span of their sending where that is sampled."""

from types import SimpleNamespace

import pytest
from builders.otlp import recorded_spans
from opentelemetry import trace

from clipper_stream.client.send_spans import MOST_REMEMBERED, SendSpans
from clipper_topics.codec import TRACEPARENT

TRACE, PARENT = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
OTHER = 0x4BF92F3577B34DA6A3CE929D0E0E4736
GIVEN = [("tenant", b"7")]


def current(trace_id=TRACE, *, sampled=True):
    """Have a span of somebody else be current for a block."""
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else trace.TraceFlags.DEFAULT)
    return trace.use_span(
        trace.NonRecordingSpan(trace.SpanContext(trace_id, PARENT, is_remote=False, trace_flags=flags))
    )


def stored(offset=5, error=None):
    """The future metadata of a record."""
    return SimpleNamespace(
        cancelled=lambda: False, exception=lambda: error, result=lambda: SimpleNamespace(offset=offset)
    )


@pytest.fixture
def spans():
    return recorded_spans()


@pytest.fixture
def client():
    return SendSpans()


def test_without_a_span_records_have_the_headers_that_the_caller_gives(client, spans):
    for begin in (client.query, client.feedback):
        with begin("topic", 0, "q", GIVEN) as sending:
            assert sending.headers == GIVEN
        sending.done(stored())
    assert spans() == []


def test_a_query_of_a_sampled_trace_is_a_span_whose_context_goes_with_the_record(client, spans):
    with current(), client.query("clipper.queries", 3, "q", GIVEN) as sending:
        headers = dict(sending.headers)
    assert spans() == []
    sending.done(stored(5))
    (span,) = spans()
    assert (span.name, span.kind) == ("send clipper.queries", trace.SpanKind.PRODUCER)
    assert (span.context.trace_id, span.parent.span_id) == (TRACE, PARENT)
    assert headers[TRACEPARENT].decode() == f"00-{TRACE:032x}-{span.context.span_id:016x}-01"
    assert headers["tenant"] == b"7"
    assert (span.attributes["messaging.destination.partition.id"], span.attributes["messaging.kafka.offset"]) == (
        "3",
        5,
    )


def test_a_context_that_is_not_sampled_goes_on_without_a_span(client, spans):
    with current(sampled=False), client.query("clipper.queries", 3, "q", []) as sending:
        assert sending.headers == [(TRACEPARENT, f"00-{TRACE:032x}-{PARENT:016x}-00".encode())]
    sending.done(stored())
    assert spans() == []


def test_a_context_that_the_caller_gives_goes_on_as_it_is(client, spans):
    with current(), client.query("clipper.queries", 3, "q", [("Traceparent", b"anything")]) as sending:
        assert sending.headers == [("Traceparent", b"anything")]
    assert spans() == []


class Refused(Exception):
    """Kafka does not take it."""


def test_a_record_that_kafka_does_not_take_is_an_error(client, spans):
    def refuse():
        with current(), client.query("clipper.queries", 3, "q", []):
            raise Refused

    with pytest.raises(Refused):
        refuse()
    with current(), client.query("clipper.queries", 3, "q", []) as sending:
        sending.done(stored(error=Refused()))
    for span in spans():
        assert (span.status.status_code, span.attributes["error.type"]) == (trace.StatusCode.ERROR, "Refused")


def test_feedback_is_linked_with_the_trace_of_its_query(client, spans):
    with current(), client.query("clipper.queries", 3, "q", []) as sending:
        sending.done(stored())
    with current(OTHER), client.feedback("clipper.feedback", 3, "q", []) as sending:
        sending.done(stored())
    query, feedback = spans()
    assert (feedback.context.trace_id, [link.context for link in feedback.links]) == (OTHER, [query.context])


def test_feedback_outside_of_a_trace_is_in_that_of_its_query(client, spans):
    with current(), client.query("clipper.queries", 3, "q", []) as sending:
        sending.done(stored())
    with client.feedback("clipper.feedback", 3, "q", []) as sending:
        sending.done(stored())
    with client.feedback("clipper.feedback", 3, "another", []) as sending:
        sending.done(stored())
    query, feedback = spans()
    assert (feedback.context.trace_id, feedback.parent.span_id) == (TRACE, query.context.span_id)


def test_a_bounded_number_of_queries_is_remembered(client, spans):
    with current():
        for number in range(MOST_REMEMBERED + 1):
            client.query("clipper.queries", 3, f"q{number}", []).done(stored())
    spans()
    for number, count in ((0, 0), (1, 1)):
        client.feedback("clipper.feedback", 3, f"q{number}", []).done(stored())
        assert len(spans()) == count
