"""Traces and records: W3C Trace Context in headers, and what OpenTelemetry calls what is done with a record.

Rules of this file:
- Headers come from anybody: what has another form is as if it was not there.
- `tracestate` is not passed on: nothing here decides by it.

Source: W3C Trace Context, level 1, "traceparent Header"; OpenTelemetry, "Semantic conventions for Kafka".
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from clipper_topics.codec import Headers, read_headers

TRACED_ROWS = "clipper-traces"
"""Header of a frame's record with rows of sampled queries: `start,stop,traceparent`, several apart by `;`."""
_FORM = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_ROWS = re.compile(r"(\d{1,6}),(\d{1,6}),(00-[0-9a-f]{32}-[0-9a-f]{16}-01)")


class TracedRows(NamedTuple):
    """Rows of a frame, from `start` to `stop`, excluded, of one sampled query, and the context they were sent in."""

    start: int
    stop: int
    traceparent: str


def traceparent_of(trace_id: str, span_id: str) -> str:
    """Return the context of a sampled span."""
    return f"00-{trace_id}-{span_id}-01"


def trace_and_span(traceparent: str) -> tuple[str, str]:
    """Return the ids of the trace and of the span, of 32 and 16 hexadecimal digits."""
    return traceparent[3:35], traceparent[36:52]


def well_formed(traceparent: bytes) -> str | None:
    """Return a `traceparent` as text; None for one of another form.

    >>> well_formed(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
    """
    return traceparent.decode() if _FORM.fullmatch(traceparent) else None


def sampled_context(headers: Headers) -> str | None:
    """Return the `traceparent` of a record whose trace is sampled; None for any other."""
    _, _, traceparent = read_headers(headers)
    return None if traceparent is None else well_formed(traceparent)


def traced_rows_header(rows: Iterable[TracedRows]) -> list[tuple[str, bytes]]:
    """Return the headers of a frame's record in which these rows are."""
    return [(TRACED_ROWS, ";".join(f"{one.start},{one.stop},{one.traceparent}" for one in rows).encode())]


def header_of_rows(headers: Headers) -> bytes | None:
    """Return the header of a frame's record that names rows of sampled queries; None where there is none."""
    for name, value in headers:
        if name == TRACED_ROWS:
            return value
    return None


def rows_in_header(value: bytes) -> tuple[TracedRows, ...]:
    """Return the rows that the header names.

    >>> rows = TracedRows(2, 3, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    >>> rows_in_header(header_of_rows(traced_rows_header([rows]))) == (rows,)
    True
    """
    found = _ROWS.findall(value.decode("ascii", "replace"))
    return tuple(TracedRows(int(start), int(stop), context) for start, stop, context in found)


def record_attributes(
    operation: str, kind: str, topic: str, partition: int | None = None, offset: int | None = None
) -> dict[str, Any]:
    """Return the attributes of a span about a record, or about several.

    The kind of operation is `send` or `process`; there is no partition for records of several, and no offset or a
    negative one where it is not known.
    """
    found: dict[str, Any] = {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": topic,
    }
    if partition is not None:
        found["messaging.destination.partition.id"] = str(partition)
    if offset is not None and offset >= 0:
        found["messaging.kafka.offset"] = offset
    return found
