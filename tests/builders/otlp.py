"""A collector of spans for tests: what arrives over OTLP/HTTP, in one form."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from e2e.programs import reserved_port
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


@dataclass(frozen=True)
class SeenSpan:
    """A span as somebody else sees it."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any] = field(hash=False)
    links: frozenset[tuple[str, str]] = frozenset()
    is_error: bool = False

    @property
    def context(self) -> tuple[str, str]:
        """Its trace and itself."""
        return self.trace_id, self.span_id


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    collector: "Collector"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.close_connection = self.collector.is_away
        if not self.collector.is_away:
            self.collector.spans += _spans_of(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Say nothing."""


class Collector:
    """Takes spans over OTLP/HTTP.

    Attributes:
        spans: All that have come.
        url: The endpoint to give to exporters.
    """

    def __init__(self, port: int) -> None:
        self.spans: list[SeenSpan] = []
        self.url, self._port = f"http://127.0.0.1:{port}", port
        self.open()

    def open(self) -> None:
        """Take connections, at the same port as before."""
        self.is_away = False
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), type("Of", (_Handler,), {"collector": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def trace(self, trace_id: str) -> list[SeenSpan]:
        """The spans of a trace that have come."""
        return [span for span in self.spans if span.trace_id == trace_id]

    def close(self) -> None:
        """Refuse connections, and end those that there are at their next word."""
        self.is_away = True
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector for the length of a block."""
    with reserved_port() as port:
        collector = Collector(port)
        try:
            yield collector
        finally:
            collector.close()


def _spans_of(request: ExportTraceServiceRequest) -> Iterator[SeenSpan]:
    for of in request.resource_spans:
        service = _values(of.resource.attributes)["service.name"]
        for span in (span for scope in of.scope_spans for span in scope.spans):
            yield SeenSpan(
                service, span.name, ProtoSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
                span.start_time_unix_nano, span.end_time_unix_nano, _values(span.attributes),
                frozenset((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                span.status.code == Status.STATUS_CODE_ERROR,
            )  # fmt: skip


def _values(attributes: Iterable[Any]) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [_value(each) for each in found.values] if kind == "array_value" else found


@cache
def _in_memory() -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)  # once a process, which OpenTelemetry does not take back
    return exporter


def recorded_spans() -> Callable[[], list[Any]]:
    """What gives the spans that this process has recorded since it was last asked."""
    exporter = _in_memory()

    def take() -> list[Any]:
        found = [*exporter.get_finished_spans()]
        exporter.clear()
        return found

    take()
    return take
