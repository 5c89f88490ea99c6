"""A client's records carry the context that is current, and a span of their sending where that is sampled."""

from types import SimpleNamespace

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from clipper_stream.client.send_spans import MOST_REMEMBERED, SendSpans
from clipper_topics.codec import TRACEPARENT

TRACE, PARENT = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
OTHER = 0x4BF92F3577B34DA6A3CE929D0E0E4736
UNSAMPLED = (TRACEPARENT, f"00-{TRACE:032x}-{PARENT:016x}-00".encode())
GIVEN = ("tenant", b"7")
OWN = ("Traceparent", b"anything")


def current(trace_id=TRACE, *, sampled=True):
    """Have a span of somebody else be current for a block."""
    context = trace.SpanContext(trace_id, PARENT, is_remote=False, trace_flags=trace.TraceFlags(sampled))
    return trace.use_span(trace.NonRecordingSpan(context))


def send(begin, query_id="q", headers=(), error=None):
    """Send a record, which Kafka takes or not; the headers that it has."""
    metadata = SimpleNamespace(offset=5)
    with begin("clipper.queries", 3, query_id, headers) as sending:
        pass
    sending.done(SimpleNamespace(cancelled=lambda: False, exception=lambda: error, result=lambda: metadata))
    return sending.headers


@pytest.fixture(scope="module")
def exporter():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)  # once a process, which OpenTelemetry does not take back
    return exporter


@pytest.fixture
def spans(exporter):
    """What gives the spans that were recorded since it was last asked."""

    def take():
        found = exporter.get_finished_spans()
        exporter.clear()
        return [*found]

    take()
    return take


@pytest.fixture
def client():
    return SendSpans()


def test_without_a_sampled_context_a_record_goes_on_without_a_span(client, spans):
    for begin in (client.query, client.feedback):
        assert send(begin, headers=[GIVEN]) == [GIVEN]
        with current(sampled=False):
            assert send(begin, headers=[GIVEN]) == [GIVEN, UNSAMPLED]
        with current():
            assert send(begin, headers=[GIVEN, OWN]) == [GIVEN, OWN], "a context of the caller's own"
    assert spans() == []


def test_a_query_of_a_sampled_trace_is_a_span_whose_context_goes_with_the_record(client, spans):
    with current():
        headers = dict(send(client.query, headers=[GIVEN]))
    (span,) = spans()
    assert (span.name, span.kind) == ("send clipper.queries", trace.SpanKind.PRODUCER)
    assert (span.context.trace_id, span.parent.span_id) == (TRACE, PARENT)
    assert headers[TRACEPARENT].decode() == f"00-{TRACE:032x}-{span.context.span_id:016x}-01"
    assert headers["tenant"] == b"7"
    assert span.attributes["messaging.destination.partition.id"] == "3"
    assert span.attributes["messaging.kafka.offset"] == 5


class Refused(Exception):
    """Kafka does not take it."""


def test_a_record_that_kafka_does_not_take_is_an_error(client, spans):
    with pytest.raises(Refused), current(), client.query("clipper.queries", 3, "q", []):
        raise Refused
    with current():
        send(client.query, error=Refused())
    refused = (trace.StatusCode.ERROR, "Refused")
    assert [(span.status.status_code, span.attributes["error.type"]) for span in spans()] == [refused] * 2


def test_feedback_is_linked_with_the_trace_of_its_query_or_in_it_where_no_other_is_current(client, spans):
    with current():
        send(client.query)
    with current(OTHER):
        send(client.feedback)
    send(client.feedback)
    send(client.feedback, "another")
    query, linked, within = spans()
    assert (linked.context.trace_id, [link.context for link in linked.links]) == (OTHER, [query.context])
    assert (within.context.trace_id, within.parent.span_id) == (TRACE, query.context.span_id)


def test_a_bounded_number_of_queries_is_remembered(client, spans):
    with current():
        for number in range(MOST_REMEMBERED + 1):
            send(client.query, f"q{number}")
    spans()
    for number, count in ((0, 0), (1, 1)):
        send(client.feedback, f"q{number}")
        assert len(spans()) == count
