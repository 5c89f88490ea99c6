"""What a host, or a router with a colocated model, tells of rows of sampled queries, and the spans that these are.

    process requests ------------- one a batch, of a trace of its own, with links to all rows that are sampled
      queue --> batch ------> send outputs         in each sampled query's trace
                  model

Rules of this file:
- A note is made where batches run, and is cheap; `spans` is called in the process that exports them.
- Times are nanoseconds since the epoch. A context is a `traceparent`.
"""

from collections.abc import Iterator
from secrets import token_hex

import msgspec

from clipper_agents.observability.tracing import CONSUMER, INTERNAL, PRODUCER, TimedSpan, new_span_id
from clipper_topics.trace_context import record_attributes, trace_and_span


class QueuedRows(msgspec.Struct, array_like=True, tag="queued"):
    """Rows of a sampled query that have waited for a batch, or past their deadline."""

    model: str
    context: str
    rows: int
    admitted_ns: int
    ended_ns: int
    error: str = ""

    def spans(self) -> Iterator[TimedSpan]:
        """Yield the span of the waiting."""
        trace_id, parent_id = trace_and_span(self.context)
        began_ns, about = min(self.admitted_ns, self.ended_ns), {"clipper.model": self.model, "clipper.rows": self.rows}
        yield TimedSpan("queue", INTERNAL, trace_id, "", parent_id, began_ns, self.ended_ns, about, (), self.error)


class BatchRun(msgspec.Struct, array_like=True, tag="batch"):
    """A batch with rows of sampled queries, which waited until `taken_ns`."""

    model: str
    topic: str
    """Where the requests were; empty in a router."""
    rows: int
    frames: int
    failed: int
    error: str
    taken_ns: int
    began_ns: int
    ended_ns: int
    """The model began, and ended."""
    now_ns: int
    queued: list[QueuedRows]

    def spans(self) -> Iterator[TimedSpan]:
        """Yield the span of the batch, and those of each query."""
        about = {"clipper.model": self.model, "clipper.batch.rows": self.rows}
        whole = trace_id, span_id = token_hex(16), new_span_id()
        links = [trace_and_span(one.context) for one in self.queued]
        kind, name, own = INTERNAL, "process", about
        if self.topic:
            kind, name = CONSUMER, f"process {self.topic}"
            own = {**about, **record_attributes("process", "process", self.topic)}
            own["messaging.batch.message_count"] = self.frames
        yield TimedSpan(name, kind, trace_id, span_id, "", self.taken_ns, self.now_ns, own, links)
        of_model = {**about, "clipper.rows.failed": self.failed}
        for one in self.queued:
            trace_id, parent_id = trace_and_span(one.context)
            batch_id, of_batch = new_span_id(), {**about, "clipper.rows": one.rows}
            yield from one.spans()
            yield TimedSpan(
                "batch", INTERNAL, trace_id, batch_id, parent_id, self.taken_ns, self.now_ns, of_batch, (whole,)
            )
            yield TimedSpan(
                "model", INTERNAL, trace_id, "", batch_id, self.began_ns, self.ended_ns, of_model, (), self.error
            )


class SentOutputs(msgspec.Struct, array_like=True, tag="outputs"):
    """Outputs of a sampled query's rows that Kafka has now."""

    context: str
    span_id: str
    topic: str
    partition: int
    offset: int
    began_ns: int
    ended_ns: int

    def spans(self) -> Iterator[TimedSpan]:
        """Yield the span of the sending."""
        trace_id, parent_id = trace_and_span(self.context)
        about = record_attributes("send", "send", self.topic, self.partition, self.offset)
        yield TimedSpan(
            f"send {self.topic}", PRODUCER, trace_id, self.span_id, parent_id, self.began_ns, self.ended_ns, about
        )
