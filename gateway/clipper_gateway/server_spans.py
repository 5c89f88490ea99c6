"""Spans of the calls that a gateway serves, over HTTP and gRPC alike.

Rules of this file:
- A caller's trace goes on; a call without one begins a trace, if the sampler of the variables OTEL_... says so.
- A span is current while its call is served, so that what the client sends is a child of it. It goes on in the place of
  the caller's `traceparent`, which goes on as it is where there is no span, but not sampled where the sampler says so.
- Nobody has a span before it is known who calls.
"""

import asyncio
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import Any, Self

from clipper_gateway.errors import refusal_of
from clipper_gateway.request_log import CLIENT_GONE, TRACEPARENT
from clipper_stream.errors import ClipperError

SERVER_FAULT = 500


class ServerSpan:
    """A call that is served; in a `with` block, at whose end it has ended. Without a span nothing is recorded.

    Attributes:
        attributes: What is known of the call, and comes to be known.
        status: As of HTTP.
    """

    def __init__(self, attributes: Mapping[str, Any], span: Any = None) -> None:
        self.attributes, self.status, self._span = {**attributes}, SERVER_FAULT, span
        self._before: Any = None

    def __enter__(self) -> Self:
        if self._span is not None:
            from opentelemetry import context, trace  # noqa: PLC0415 - an optional dependency

            self._before = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._span is not None:
            self._end(_status_of(error) if error is not None else self.status)

    def _end(self, status: int) -> None:
        from opentelemetry import context, trace  # noqa: PLC0415 - an optional dependency

        context.detach(self._before)
        self._span.set_attributes({**self.attributes, "http.response.status_code": status})
        if status >= SERVER_FAULT:
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()


class ServerSpans:
    """Begins the spans of one gateway."""

    def __init__(self, tracer: Any = None) -> None:
        self._tracer = tracer

    def serving(self, name: str, headers: MutableMapping[str, str], attributes: Mapping[str, Any]) -> ServerSpan:
        """Begin to serve a call."""
        if self._tracer is None:
            return ServerSpan(attributes)
        from opentelemetry import context, trace  # noqa: PLC0415 - an optional dependency

        given, within = headers.get("traceparent"), context.Context()
        if given is not None and TRACEPARENT.fullmatch(given):
            if not int(given[-2:], 16) & trace.TraceFlags.SAMPLED:
                return ServerSpan(attributes)
            ids = int(given[3:35], 16), int(given[36:52], 16)
            caller = trace.SpanContext(*ids, is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))
            within = trace.set_span_in_context(trace.NonRecordingSpan(caller), within)
        span = self._tracer.start_span(name, within, trace.SpanKind.SERVER, attributes)
        if span.is_recording():
            headers.pop("traceparent", None)
            return ServerSpan(attributes, span)
        if given is not None:
            headers["traceparent"] = f"{given[:-2]}00"
        return ServerSpan(attributes)


def _status_of(error: BaseException) -> int:
    if isinstance(error, ClipperError):
        return refusal_of(error).status
    return CLIENT_GONE if isinstance(error, asyncio.CancelledError) else SERVER_FAULT


UNTRACED = ServerSpans()
"""Where nothing is recorded."""
