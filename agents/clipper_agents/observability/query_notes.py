"""What a router tells of sampled queries, and the spans that these are, which another process makes of it.

    process queries -------------------------------------------------------------- of one query
      decode, decide, send requests (to each model), process outputs, combine, record predictions

Rules of this file:
- A note is made where queries are served, and is cheap; `spans` is called in the process that exports them.
- A span about a record has the span that wrote it as its parent: that is what is known of one record's trace.
- Times are nanoseconds since the epoch. A context is a `traceparent`.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from clipper_agents.observability.tracing import CONSUMER, INTERNAL, PRODUCER, TimedSpan
from clipper_topics.trace_context import record_attributes, rows_in_header, trace_and_span

Attributes = dict[str, Any]


class ProcessedRecord(msgspec.Struct, array_like=True, tag="processed"):
    """A record that was processed, for the trace that it is part of."""

    context: str
    topic: str
    partition: int
    offset: int
    began_ns: int
    ended_ns: int
    attributes: dict[str, str | int | float | bool] = {}
    span_id: str = ""
    error: str = ""

    def spans(self) -> Iterator[TimedSpan]:
        """Yield the span of the record."""
        trace_id, parent_id = trace_and_span(self.context)
        about = {**self.attributes, **record_attributes("process", "process", self.topic, self.partition, self.offset)}
        ids, times = (trace_id, self.span_id, parent_id), (self.began_ns, self.ended_ns)
        yield TimedSpan(f"process {self.topic}", CONSUMER, *ids, *times, about, (), self.error)


class AnsweredQuery(msgspec.Struct, array_like=True, tag="answered"):
    """A query whose prediction is in the log.

    Attributes:
        times_ns: When its record was read; it was decoded; decided about; its answer written down; that stored.
        log: Topic and offset of the prediction.
        rows: 0 for a query that was answered before.
        combining_ns: When what came of the models began to be combined.
        reason: Of a default.
        models: Those asked; none for a query that asked nobody.
        missing: Those that did not answer, each with the reason.
    """

    context: str
    span_id: str
    topic: str
    partition: int
    offset: int
    times_ns: tuple[int, int, int, int, int]
    log: tuple[str, int]
    application: str
    query_id: str
    rows: int
    combining_ns: int
    reason: str | None
    policy: str = ""
    revision: int = 0
    models: list[str] = []
    propensity: float | None = None
    confidence: float = 0.0
    cached: list[str] = []
    missing: list[str] = []

    def spans(self) -> Iterator[TimedSpan]:
        """Yield the spans of what the router did, but for those of requests and outputs."""
        began_ns, decoded_ns, decided_ns, answered_ns, stored_ns = self.times_ns
        yield self._within("decode", began_ns, decoded_ns, {})
        if self.rows:
            yield self._within("decide", decoded_ns, decided_ns, self._decision())
        if self.models:
            found: Attributes = {"clipper.confidence": self.confidence, "clipper.models.cached": self.cached}
            found["clipper.models.missing"] = self.missing
            combining_ns = max(decided_ns, self.combining_ns)
            yield self._within("combine", combining_ns, max(combining_ns, answered_ns), found)
        yield from RecordedNote(self.context, self.span_id, self.partition, answered_ns, stored_ns, self.log).spans()
        place = self.topic, self.partition, self.offset
        yield from ProcessedRecord(self.context, *place, began_ns, stored_ns, self._outcome(), self.span_id).spans()

    def _decision(self) -> Attributes:
        if not self.models:
            return {}
        found = {"clipper.policy": self.policy, "clipper.revision": self.revision, "clipper.models": self.models}
        return found if self.propensity is None else {**found, "clipper.propensity": self.propensity}

    def _outcome(self) -> Attributes:
        found: Attributes = {"clipper.application": self.application, "clipper.query_id": self.query_id}
        if not self.rows:
            return {**found, "clipper.repeated": True}
        found |= {"clipper.rows": self.rows, "clipper.default": self.reason is not None}
        return found if self.reason is None else {**found, "clipper.default.reason": self.reason}

    def _within(self, name: str, began_ns: int, ended_ns: int, attributes: Attributes) -> TimedSpan:
        trace_id, _ = trace_and_span(self.context)
        return TimedSpan(name, INTERNAL, trace_id, "", self.span_id, began_ns, ended_ns, attributes)


class RecordedNote(msgspec.Struct, array_like=True, tag="recorded"):
    """A prediction or an audit that is in its log."""

    context: str
    parent_id: str
    partition: int
    began_ns: int
    ended_ns: int
    log: tuple[str, int]

    def spans(self) -> Iterator[TimedSpan]:
        """Yield the span of the writing."""
        trace_id, _ = trace_and_span(self.context)
        (topic, offset), name = self.log, f"record {self.log[0]}"
        stored = record_attributes("record", "send", topic, self.partition, offset)
        yield TimedSpan(name, PRODUCER, trace_id, "", self.parent_id, self.began_ns, self.ended_ns, stored)


class SentRequest(msgspec.Struct, array_like=True, tag="sent"):
    """A request with rows of sampled queries that Kafka has now; without a partition it was lost."""

    topic: str
    partition: int | None
    offset: int
    model: str
    rows: int
    ended_ns: int
    parts: list[tuple[str, str, str, int, bool, int]]
    """Of each query: context, span of the query, span of the sending, rows, whether they are served, since when."""

    def spans(self) -> Iterator[TimedSpan]:
        """Yield the span of each query."""
        common = record_attributes("send", "send", self.topic, self.partition, self.offset)
        common |= {"clipper.model": self.model, "clipper.request.rows": self.rows}
        error = "not_stored" if self.partition is None else ""
        for context, parent_id, span_id, rows, is_served, began_ns in self.parts:
            trace_id, _ = trace_and_span(context)
            about = {**common, "clipper.rows": rows, "clipper.served": is_served}
            yield TimedSpan(
                f"send {self.topic}", PRODUCER, trace_id, span_id, parent_id, began_ns, self.ended_ns, about, (), error
            )


class GatheredOutputs(msgspec.Struct, array_like=True, tag="gathered"):
    """A record of outputs that was gathered, with the header that names rows of sampled queries."""

    header: bytes
    topic: str
    partition: int
    offset: int
    began_ns: int
    ended_ns: int

    def spans(self) -> Iterator[TimedSpan]:
        """Yield the span of each query's rows."""
        for rows in rows_in_header(self.header):
            record = ProcessedRecord(
                rows.traceparent, self.topic, self.partition, self.offset, self.began_ns, self.ended_ns
            )
            yield from record.spans()
