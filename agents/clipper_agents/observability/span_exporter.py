"""Spans over OTLP by OpenTelemetry's SDK: in a gateway, and in a process beside each worker whose spans it sends.

    python -m clipper_agents.observability.span_exporter ROLE INSTANCE LOGS     # which a worker starts

Rules of this file:
- The process ends when its standard input does: its worker has ended, whichever way.
- Its worker's supervisor waits for the end of the standard error that both have, so it is closed before anything that
  takes time.
"""

import os
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from typing import Any, BinaryIO, TypeAlias

import msgspec
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from clipper_agents.observability.batch_notes import BatchRun, QueuedRows, SentOutputs
from clipper_agents.observability.logging import LogOptions
from clipper_agents.observability.query_notes import (
    AnsweredQuery,
    GatheredOutputs,
    ProcessedRecord,
    RecordedNote,
    SentRequest,
)
from clipper_agents.observability.tracing import LENGTH_BYTES, TimedSpan, end_within

Note: TypeAlias = (
    AnsweredQuery | BatchRun | GatheredOutputs | ProcessedRecord | QueuedRows | RecordedNote | SentOutputs | SentRequest
)
"""What workers write."""
NAME = "clipper_stream"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
NICENESS = 5
"""Spans may wait for queries."""
LAST_S = 5.0
"""For the last spans of a worker that has ended, which waits less for them."""


def make_provider(role: str, instance: str, **how: Any) -> TracerProvider:
    """Return a provider of tracers that exports over OTLP, as the variables say; `how` is for its constructor."""
    kind = "grpc" if "grpc" in map(os.environ.get, PROTOCOLS) else "http"
    exporter = import_module(f"opentelemetry.exporter.otlp.proto.{kind}.trace_exporter").OTLPSpanExporter()
    given = Resource.create()
    own = {"service.instance.id": instance, "service.version": version("clipper-stream")}
    if str(given.attributes["service.name"]).startswith("unknown_service"):
        own["service.name"] = f"clipper-{role}"
    provider = TracerProvider(resource=given.merge(Resource(own)), shutdown_on_exit=False, **how)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def use(provider: TracerProvider) -> trace.Tracer:
    """Have all of this process record by a provider; a tracer."""
    trace.set_tracer_provider(provider)
    return trace.get_tracer(NAME)


class GivenIds(RandomIdGenerator):
    """Gives the ids that a worker has given a span: other processes have them already."""

    def __init__(self) -> None:
        self.span_id = self.trace_id = 0

    def generate_span_id(self) -> int:
        return self.span_id or super().generate_span_id()

    def generate_trace_id(self) -> int:
        return self.trace_id


class SpanRecorder:
    """Makes spans of the SDK from those of a worker.

    Args:
        role, instance: Whose spans they are.
    """

    def __init__(self, role: str, instance: str) -> None:
        self._ids = GivenIds()
        self.provider = make_provider(role, instance, id_generator=self._ids, sampler=ALWAYS_ON)
        self._tracer = self.provider.get_tracer(NAME)

    def record(self, span: TimedSpan) -> None:
        """Record a span."""
        self._ids.trace_id, self._ids.span_id = int(span.trace_id, 16), int(span.span_id or "0", 16)
        parent = trace.set_span_in_context(trace.INVALID_SPAN)
        if span.parent_id:
            parent = trace.set_span_in_context(trace.NonRecordingSpan(_context(span.trace_id, span.parent_id)))
        attributes = {**span.attributes, "error.type": span.error} if span.error else span.attributes
        links = [trace.Link(_context(*one)) for one in span.links]
        made = self._tracer.start_span(
            span.name, parent, trace.SpanKind[span.kind], attributes, links, start_time=span.start_ns
        )
        if span.error:
            made.set_status(trace.StatusCode.ERROR)
        made.end(span.end_ns)


def _context(trace_id: str, span_id: str) -> trace.SpanContext:
    return trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(trace.TraceFlags.SAMPLED))  # noqa: FBT003


def batches(source: BinaryIO) -> Iterator[list[Note]]:
    """Yield the batches that a worker has written, until its end; what it could not write wholly is left out."""
    decoder = msgspec.msgpack.Decoder(list[Note])
    while len(length := source.read(LENGTH_BYTES)) == LENGTH_BYTES:
        value = source.read(size := int.from_bytes(length))
        if len(value) == size:
            yield decoder.decode(value)


def main() -> None:
    """Send spans until the worker has ended."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    role, instance, logs = sys.argv[1:4]
    LogOptions(format=logs).configure(os.environ)
    recorder = SpanRecorder(role, instance)
    for notes in batches(sys.stdin.buffer):
        for span in (span for note in notes for span in note.spans()):
            recorder.record(span)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stderr.fileno())
    end_within(recorder.provider.shutdown, LAST_S)
    os._exit(0)


if __name__ == "__main__":
    main()
