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
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context

from clipper_gateway.errors import refusal_of
from clipper_gateway.request_log import CLIENT_GONE
from clipper_stream.errors import ClipperError
from clipper_topics.codec import TRACEPARENT
from clipper_topics.trace_context import context_in

SERVER_FAULT = 500


class ServedCall:
    """A call that is served, whose `status` is as of HTTP."""

    status = SERVER_FAULT


class ServerSpans:
    """Begins and ends the spans of one gateway; none without a tracer."""

    def __init__(self, tracer: trace.Tracer | None = None) -> None:
        self._tracer = tracer

    @contextmanager
    def serving(
        self, name: str, headers: MutableMapping[str, str], attributes: Mapping[str, Any]
    ) -> Iterator[ServedCall]:
        """Serve a call in a span with these attributes, which ends with the status that is set, or an error's."""
        call, given = ServedCall(), headers.get(TRACEPARENT, "")
        span = trace.INVALID_SPAN if self._tracer is None else self._begin(self._tracer, name, given, attributes)
        if not span.is_recording():
            if given and self._tracer is not None:
                headers[TRACEPARENT] = f"{given[:-2]}00"
            yield call
            return
        headers.pop(TRACEPARENT, None)
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield call
            except BaseException as error:
                call.status = _status_of(error)
                raise
            finally:
                span.set_attribute("http.response.status_code", call.status)
                if call.status >= SERVER_FAULT:
                    span.set_attribute("error.type", str(call.status))
                    span.set_status(trace.StatusCode.ERROR)

    def _begin(self, tracer: trace.Tracer, name: str, traceparent: str, attributes: Mapping[str, Any]) -> trace.Span:
        caller = trace.NonRecordingSpan(context_in(traceparent))
        return tracer.start_span(name, trace.set_span_in_context(caller, Context()), trace.SpanKind.SERVER, attributes)


def _status_of(error: BaseException) -> int:
    if isinstance(error, ClipperError):
        return refusal_of(error).status
    return CLIENT_GONE if isinstance(error, asyncio.CancelledError) else SERVER_FAULT


UNTRACED = ServerSpans()
"""Where nothing is recorded."""
