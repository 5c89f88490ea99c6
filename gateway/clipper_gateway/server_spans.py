"""Spans of the calls that a gateway serves, over HTTP and gRPC alike.

Rules of this file:
- A caller's trace goes on; a call without one begins a trace, if the sampler of the variables OTEL_... says so.
- A span is current while its call is served, so that what the client sends is a child of it. It goes on in the place of
  the caller's `traceparent`, which goes on as it is where there is no span, but not sampled where the sampler says so.
- Nobody has a span before it is known who calls.
"""

import asyncio
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from clipper_gateway.errors import refusal_of
from clipper_gateway.request_log import CLIENT_GONE, TRACEPARENT
from clipper_stream.errors import ClipperError

SERVER_FAULT = 500


@dataclass(slots=True)
class ServerSpan:
    """A call that is served; its `status` is as of HTTP."""

    status: int = SERVER_FAULT


class ServerSpans:
    """Begins and ends the spans of one gateway."""

    def __init__(self, tracer: Any = None) -> None:
        self._tracer = tracer

    @contextmanager
    def serving(
        self, name: str, headers: MutableMapping[str, str], attributes: Mapping[str, Any]
    ) -> Iterator[ServerSpan]:
        """Serve a call in a block, at whose end it has ended."""
        served = ServerSpan()
        span = None if self._tracer is None else self._begun(name, headers, attributes)
        if span is None:
            yield served
            return
        from opentelemetry import trace  # noqa: PLC0415 - an optional dependency

        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield served
            except BaseException as error:
                served.status = _status_of(error)
                raise
            finally:
                span.set_attribute("http.response.status_code", served.status)
                if served.status >= SERVER_FAULT:
                    span.set_attribute("error.type", str(served.status))
                    span.set_status(trace.StatusCode.ERROR)

    def _begun(self, name: str, headers: MutableMapping[str, str], attributes: Mapping[str, Any]) -> Any:
        """Return the span of a call that is recorded, else None."""
        from opentelemetry import context, trace  # noqa: PLC0415 - an optional dependency

        given, within = headers.get("traceparent"), context.Context()
        if given is not None and TRACEPARENT.fullmatch(given):
            if not int(given[-2:], 16) & trace.TraceFlags.SAMPLED:
                return None
            ids = int(given[3:35], 16), int(given[36:52], 16)
            caller = trace.SpanContext(*ids, is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))
            within = trace.set_span_in_context(trace.NonRecordingSpan(caller), within)
        span = self._tracer.start_span(name, within, trace.SpanKind.SERVER, attributes)
        if span.is_recording():
            headers.pop("traceparent", None)
            return span
        if given is not None:
            headers["traceparent"] = f"{given[:-2]}00"
        return None


def _status_of(error: BaseException) -> int:
    if isinstance(error, ClipperError):
        return refusal_of(error).status
    return CLIENT_GONE if isinstance(error, asyncio.CancelledError) else SERVER_FAULT


UNTRACED = ServerSpans()
"""Where nothing is recorded."""
