"""A collector of spans for tests: what arrives over OTLP/HTTP, in one form."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from e2e.programs import reserved_port
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from stub_server import Answer, Asked, StubServer, serving


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
    events: tuple[tuple[str, int], ...] = ()

    @property
    def context(self) -> tuple[str, str]:
        return self.trace_id, self.span_id


@dataclass
class Collector(StubServer):
    """Takes spans over OTLP/HTTP at `root`, for as long as it is open; `spans` are all that have come."""

    spans: list[SeenSpan] = field(default_factory=list)
    is_away: bool = True

    def answer(self, asked: Asked) -> Answer | None:
        self.spans += () if self.is_away else _spans_of(ExportTraceServiceRequest.FromString(asked.body))
        return None if self.is_away else Answer(b"")

    def trace(self, trace_id: str) -> list[SeenSpan]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def open(self) -> None:
        """Take connections, at the same port as before."""
        self._served = serving(self)
        self._served.__enter__()
        self.is_away = False

    def close(self) -> None:
        """Refuse connections, and end those that there are at their next word."""
        self.is_away = True
        self._served.__exit__(None, None, None)


@contextmanager
def collecting() -> Iterator[Collector]:
    with reserved_port() as port:
        collector = Collector(port=port)
        collector.open()
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
                tuple((event.name, event.time_unix_nano) for event in span.events),
            )  # fmt: skip


def _values(attributes: Iterable[Any]) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [_value(each) for each in found.values] if kind == "array_value" else found
