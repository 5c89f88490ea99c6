"""Traces and records: W3C Trace Context in headers, and what OpenTelemetry calls what is done with a record.

Rules of this file:
- Headers come from anybody: what has another form is as if it was not there.
- `tracestate` is not passed on: nothing here decides by it.

Source: W3C Trace Context, level 1, "traceparent Header"; OpenTelemetry, "Semantic conventions for Kafka".
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, TraceFlags

from clipper_topics.codec import Headers

TRACED_ROWS = "clipper-traces"
"""Header of a request's record with rows of sampled queries: `start,stop,traceparent`, several apart by `;`."""
_ROWS = re.compile(r"(\d{1,6}),(\d{1,6}),([0-9a-f-]{55})")
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class TracedRows(NamedTuple):
    """Rows of a frame, from `start` to `stop`, excluded, of one sampled query, and the span that asks for them."""

    start: int
    stop: int
    parent: SpanContext


def context_in(traceparent: str) -> SpanContext:
    """Return the span that a `traceparent` names; one that is not valid for any other text."""
    found = TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return INVALID_SPAN_CONTEXT
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))


def is_sampled(span: SpanContext) -> bool:
    """Return whether a span is one, and is recorded by whoever began it."""
    return span.is_valid and span.trace_flags.sampled


def traceparent_of(span: SpanContext) -> str:
    """Return a span as records and calls name it.

    >>> traceparent_of(context_in("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
    '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
    """
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def traced_rows_header(rows: Iterable[TracedRows]) -> list[tuple[str, bytes]]:
    """Return the headers of a request's record in which these rows are."""
    named = (f"{start},{stop},{traceparent_of(parent)}" for start, stop, parent in rows)
    return [(TRACED_ROWS, ";".join(named).encode())]


def traced_rows(headers: Headers) -> tuple[TracedRows, ...]:
    """Return the rows of sampled queries that the headers of a request's record name."""
    value = next((value for name, value in headers if name == TRACED_ROWS), None)
    found = _ROWS.findall((value or b"").decode("ascii", "replace"))
    rows = (TracedRows(int(start), int(stop), context_in(traceparent)) for start, stop, traceparent in found)
    return tuple(one for one in rows if is_sampled(one.parent))


def record_attributes(kind: str, topic: str, partition: int, offset: int | None = None) -> dict[str, Any]:
    """Return the attributes of a span in which a record is sent or processed (`kind`: `send` or `process`)."""
    found: dict[str, Any] = {
        "messaging.system": "kafka",
        "messaging.operation.name": kind,
        "messaging.destination.name": topic,
        "messaging.destination.partition.id": str(partition),
    }
    if offset is not None:
        found["messaging.kafka.offset"] = offset
    return found
