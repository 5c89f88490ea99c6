"""Spans of what a client sends, in an application that records traces by OpenTelemetry.

Rules of this file:
- OpenTelemetry is not imported: where a span is current, the application has imported it.
- A context that is current goes on in the header `traceparent`. Where it is sampled, a span of the sending is between.
- A header `traceparent` of the caller's own goes on as it is.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from clipper_topics.codec import TRACEPARENT
from clipper_topics.trace_context import record_attributes

MOST_REMEMBERED = 4_096
"""Traces of queries, for their feedback; a few hundred bytes each."""
RecordHeaders = Iterable[tuple[str, bytes]]


class SendSpan:
    """The sending of one record, as a span where that is recorded.

    Attributes:
        headers: Of the record.
    """

    def __init__(self, headers: RecordHeaders, span: Any = None) -> None:
        self.headers, self._span = headers, span

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._fail(kind)

    def done(self, sent: Any) -> None:
        """End with the future metadata of the record, which is there or has failed."""
        error = None if sent.cancelled() else sent.exception()
        if sent.cancelled() or error is not None:
            self._fail(type(error))
        elif self._span is not None:
            self._span.set_attribute("messaging.kafka.offset", sent.result().offset)
            self._span.end()

    def _fail(self, kind: type[BaseException | None]) -> None:
        if self._span is not None:
            self._span.set_attribute("error.type", kind.__name__)
            self._span.set_status(sys.modules["opentelemetry.trace"].StatusCode.ERROR)
            self._span.end()


class SendSpans:
    """Begins the spans of one client, and remembers those of queries for their feedback."""

    def __init__(self) -> None:
        self._queries: OrderedDict[str, Any] = OrderedDict()

    def query(self, topic: str, partition: int, query_id: str, headers: RecordHeaders) -> SendSpan:
        """Begin to send a query."""
        api = sys.modules.get("opentelemetry.trace")
        parent = None if api is None else api.get_current_span().get_span_context()
        if api is None or parent is None or not parent.is_valid:
            return SendSpan(headers)
        sending, context = _begun(api, parent, (), topic, partition, headers)
        if context is not None:
            self._queries[query_id] = context
            if len(self._queries) > MOST_REMEMBERED:
                self._queries.popitem(last=False)
        return sending

    def feedback(self, topic: str, partition: int, query_id: str, headers: RecordHeaders) -> SendSpan:
        """Begin to send feedback, with a link to its query's trace, or in that where no span is current."""
        api, query = sys.modules.get("opentelemetry.trace"), self._queries.get(query_id)
        parent = None if api is None else api.get_current_span().get_span_context()
        if api is None or parent is None:
            return SendSpan(headers)
        if parent.is_valid:
            links = () if query is None else (api.Link(query),)
            return _begun(api, parent, links, topic, partition, headers)[0]
        return SendSpan(headers) if query is None else _begun(api, query, (), topic, partition, headers)[0]


def _begun(
    api: Any, parent: Any, links: Any, topic: str, partition: int, headers: RecordHeaders
) -> tuple[SendSpan, Any]:
    """Return the sending of a record in a context, and its own context where it is a span."""
    given = [*headers]
    if any(name.lower() == TRACEPARENT for name, _ in given):
        return SendSpan(given), None
    span, context = None, parent
    if parent.trace_flags.sampled:
        within = api.set_span_in_context(api.NonRecordingSpan(parent))
        attributes = record_attributes("send", "send", topic, partition)
        tracer = api.get_tracer("clipper_stream")
        span = tracer.start_span(f"send {topic}", within, api.SpanKind.PRODUCER, attributes, links)
        context = span.get_span_context()
    value = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return SendSpan([*given, (TRACEPARENT, value.encode())], span), context if span is not None else None
