"""Spans of what a client sends, in an application that records traces by OpenTelemetry.

Rules of this file:
- A context that is current goes on in the header `traceparent`. Where it is sampled, a span of the sending is between.
- A header `traceparent` of the caller's own goes on as it is.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Self

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode

from clipper_topics.codec import TRACEPARENT
from clipper_topics.trace_context import is_sampled, record_attributes, traceparent_of

MOST_REMEMBERED = 4_096
"""Traces of queries, for their feedback; a few hundred bytes each."""
RecordHeaders = Iterable[tuple[str, bytes]]


class SendSpan:
    """The sending of one record with its headers, in a `with` block as far as it may raise."""

    def __init__(self, headers: RecordHeaders, span: trace.Span = INVALID_SPAN) -> None:
        self.headers, self.span = headers, span

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            self._fail(error)

    def done(self, sent: "asyncio.Future[Any]") -> None:
        """End with the future metadata of the record, which is there or has failed."""
        if (error := asyncio.CancelledError() if sent.cancelled() else sent.exception()) is not None:
            self._fail(error)
            return
        self.span.set_attribute("messaging.kafka.offset", sent.result().offset)
        self.span.end()

    def _fail(self, error: BaseException) -> None:
        self.span.set_attribute("error.type", type(error).__name__)
        self.span.set_status(StatusCode.ERROR)
        self.span.end()


class SendSpans:
    """Begins the spans of one client, and remembers those of queries for their feedback."""

    def __init__(self) -> None:
        self._queries: OrderedDict[str, SpanContext] = OrderedDict()

    def query(self, topic: str, partition: int, query_id: str, headers: RecordHeaders) -> SendSpan:
        """Begin to send a query."""
        sending = _begun(trace.get_current_span().get_span_context(), (), topic, partition, headers)
        if sending.span is not INVALID_SPAN:
            self._queries[query_id] = sending.span.get_span_context()
            if len(self._queries) > MOST_REMEMBERED:
                self._queries.popitem(last=False)
        return sending

    def feedback(self, topic: str, partition: int, query_id: str, headers: RecordHeaders) -> SendSpan:
        """Begin to send feedback, with a link to its query's trace, or in that where no span is current."""
        parent, query = trace.get_current_span().get_span_context(), self._queries.get(query_id)
        if parent.is_valid or query is None:
            return _begun(parent, () if query is None else (Link(query),), topic, partition, headers)
        return _begun(query, (), topic, partition, headers)


def _begun(
    parent: SpanContext, links: tuple[Link, ...], topic: str, partition: int, headers: RecordHeaders
) -> SendSpan:
    if not parent.is_valid:
        return SendSpan(headers)
    given = [*headers]
    if any(name.lower() == TRACEPARENT for name, _ in given):
        return SendSpan(given)
    span: trace.Span = INVALID_SPAN
    context = parent
    if is_sampled(parent):
        tracer, within = trace.get_tracer("clipper_stream"), trace.set_span_in_context(NonRecordingSpan(parent))
        about = record_attributes("send", topic, partition)
        span = tracer.start_span(f"send {topic}", within, SpanKind.PRODUCER, about, links)
        context = span.get_span_context()
    return SendSpan([*given, (TRACEPARENT, traceparent_of(context).encode())], span)
