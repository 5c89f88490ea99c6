"""Spans of the calls that a gateway serves, over HTTP and gRPC alike.

Rules of this file:
- A caller's trace goes on; a call without one begins a trace, if the sampler of the variables OTEL_... says so.
- A span is current while its call is served, so that what the client sends is a child of it. It goes on in the place of
  the caller's `traceparent`, which goes on as it is where there is no span, but not sampled where the sampler says so.
- Nobody has a span before it is known who calls.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from starlette.requests import ClientDisconnect

from clipper_gateway.errors import refusal_of
from clipper_gateway.served_call import CLIENT_GONE, ServedCall
from clipper_topics.codec import TRACEPARENT
from clipper_topics.trace_context import context_in

GONE, SERVER_FAULT = (asyncio.CancelledError, ClientDisconnect), 500


class ServerSpans:
    """Begins and ends the spans of one gateway; none without a tracer."""

    def __init__(self, tracer: trace.Tracer | None = None) -> None:
        self._tracer = tracer

    @contextmanager
    def serving(self, call: ServedCall, name: str, attributes: Mapping[str, Any]) -> Iterator[None]:
        """Serve a call in a span with these attributes, which ends with the call's status, or an error's."""
        given = call.headers.get(TRACEPARENT, "")
        span = trace.INVALID_SPAN if self._tracer is None else self._begin(self._tracer, name, given, attributes)
        if not span.is_recording():
            if given and self._tracer is not None:
                call.headers[TRACEPARENT] = f"{given[:-2]}00"
            yield
            return
        call.headers.pop(TRACEPARENT, None)
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield
            except BaseException as error:
                call.status = CLIENT_GONE if isinstance(error, GONE) else refusal_of(error).status
                raise
            finally:
                span.set_attribute("http.response.status_code", call.status)
                if call.status >= SERVER_FAULT:
                    span.set_attribute("error.type", str(call.status))
                    span.set_status(trace.StatusCode.ERROR)

    def _begin(self, tracer: trace.Tracer, name: str, traceparent: str, attributes: Mapping[str, Any]) -> trace.Span:
        caller = trace.NonRecordingSpan(context_in(traceparent))
        return tracer.start_span(name, trace.set_span_in_context(caller, Context()), trace.SpanKind.SERVER, attributes)


UNTRACED = ServerSpans()
"""Where nothing is recorded."""
