"""Spans that a worker has recorded, for tests."""

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from clipper_agents.observability.span_exporter import SpanRecorder
from clipper_topics.trace_context import context_in

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
CONTEXT = context_in(SAMPLED)


class RecordedSpans(SpanRecorder):
    """A recorder whose spans can be looked at."""

    def __init__(self):
        self._exporter = InMemorySpanExporter()
        super().__init__(SimpleSpanProcessor(self._exporter), Resource({}))

    @property
    def all(self):
        return [*self._exporter.get_finished_spans()]

    def named(self, name):
        return [span for span in self.all if span.name == name]


def events(span):
    """Names of a span's events, each with the model that it is about, in the order of time."""
    found = sorted(span.events, key=lambda event: event.timestamp)
    return [" ".join([event.name, *(event.attributes or {}).values()]) for event in found]
