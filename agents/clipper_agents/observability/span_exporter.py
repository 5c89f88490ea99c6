"""What needs OpenTelemetry's SDK, which is optional: spans of a worker, and the queue from which they go over OTLP.

A worker's span becomes the SDK's `ReadableSpan` when it ends. To begin and end it by a tracer costs ten times as much.
"""

import os
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from random import getrandbits
from typing import Any

from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from prometheus_client import Counter

MOST_WAITING = 2_048
"""Unless the variable says otherwise; as in the SDK."""
_FAILED, _UNSET, _SAMPLED = Status(StatusCode.ERROR), Status(StatusCode.UNSET), TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope("clipper_stream")


class WorkerSpan:
    """A span in a sampled trace, from its beginning to its end; times are nanoseconds since the epoch.

    Attributes:
        context: What other spans know it by.
        attributes: With `error.type` where something failed.
        has_ended: Whether it is on its way to the collector.
    """

    __slots__ = ("_began_ns", "_events", "_kind", "_name", "_parent", "_recorder", "attributes", "context", "has_ended")

    def __init__(
        self,
        recorder: "SpanRecorder",
        name: str,
        kind: SpanKind,
        parent: SpanContext,
        attributes: dict[str, Any],
        began_ns: int,
    ) -> None:
        self._recorder, self._name, self._kind, self._parent, self._began_ns = recorder, name, kind, parent, began_ns
        self.context = SpanContext(parent.trace_id, getrandbits(64) or 1, is_remote=False, trace_flags=_SAMPLED)
        self.attributes, self.has_ended = attributes, False
        self._events: list[Event] = []

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, at_ns: int | None = None) -> None:
        self._events.append(Event(name, attributes, at_ns))

    def end(self, attributes: Mapping[str, Any], ended_ns: int | None = None) -> None:
        """End the span, of which these attributes too are known now."""
        self.has_ended = True
        self.attributes |= attributes
        span = ReadableSpan(
            self._name,
            self.context,
            self._parent,
            self._recorder.resource,
            self.attributes,
            self._events,
            kind=self._kind,
            status=_FAILED if "error.type" in attributes else _UNSET,
            start_time=self._began_ns,
            end_time=ended_ns or time.time_ns(),
            instrumentation_scope=_SCOPE,
        )
        self._recorder.queue.on_end(span)


class SpanRecorder:
    """Where the spans of a process go, and what they have in common."""

    def __init__(self, queue: SpanProcessor, resource: Resource) -> None:
        self.queue, self.resource = queue, resource

    def begin(
        self, name: str, kind: SpanKind, parent: SpanContext, attributes: dict[str, Any], began_ns: int | None = None
    ) -> WorkerSpan:
        return WorkerSpan(self, name, kind, parent, attributes, began_ns or time.time_ns())


class ProcessResource(Resource):
    """A resource whose hash is its identity's, not its JSON's: the encoder asks for it with each span."""

    __hash__ = object.__hash__


class CountingExporter(SpanExporter):
    """Counts the spans that an exporter is given, and those that it could not send."""

    def __init__(self, exporter: SpanExporter, lost: Counter) -> None:
        self._exporter, self._lost, self.given = exporter, lost, 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.given += len(spans)
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._lost.inc(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class SpanQueue(BatchSpanProcessor):
    """The SDK's queue of ended spans, and its thread, which sends them; counts those for which it has no room."""

    def __init__(self, lost: Counter) -> None:
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
        kind = "grpc" if os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", protocol) == "grpc" else "http"
        exporter = import_module(f"opentelemetry.exporter.otlp.proto.{kind}.trace_exporter").OTLPSpanExporter()
        self._most, self._queued, self._lost = int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE) or MOST_WAITING), 0, lost
        self._exporter = CountingExporter(exporter, lost)
        super().__init__(self._exporter, self._most)

    def on_end(self, span: ReadableSpan) -> None:
        if self._queued - self._exporter.given >= self._most:
            self._lost.inc()
        else:
            self._queued += 1
            super().on_end(span)


def resource_of(role: str, instance: str) -> Resource:
    """Return what all spans of a process have in common."""
    given = Resource.create()
    own = {"service.instance.id": instance, "service.version": version("clipper-stream")}
    if str(given.attributes["service.name"]).startswith("unknown_service"):
        own["service.name"] = f"clipper-{role}"
    return ProcessResource(given.merge(Resource(own)).attributes)
