import asyncio

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased
from starlette.responses import Response
from starlette.routing import Router
from unit.gateway.rig import KeptLog, StubAccess, browser_of

from clipper_gateway.errors import Refusal
from clipper_gateway.rest import Endpoints
from clipper_gateway.served_call import ServedCall
from clipper_gateway.server_spans import ServerSpans

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
ON, OFF = ParentBased(ALWAYS_ON), ParentBased(ALWAYS_OFF)
NAME = "POST /v1/applications/{name}/predict"


class Recorder:
    def __init__(self, sampler):
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.spans = ServerSpans(provider.get_tracer("tests"))

    def serve(self, traceparent=None, work=lambda call: None):
        """Serve a call; its headers then, and the context that was current meanwhile."""
        call = ServedCall(headers={} if traceparent is None else {"traceparent": traceparent})
        with self.spans.serving(call, NAME, {"http.route": "/v1"}):
            context = trace.get_current_span().get_span_context()
            call.status = 200
            work(call)
        return call.headers, context

    @property
    def found(self):
        return self._exporter.get_finished_spans()


def test_a_callers_sampled_trace_goes_on_in_the_place_of_its_header():
    recorder = Recorder(OFF)
    headers, context = recorder.serve(SAMPLED)
    (span,) = recorder.found
    assert (span.name, span.kind, span.context) == (NAME, trace.SpanKind.SERVER, context)
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}", headers) == (TRACE, PARENT, {})
    assert span.attributes == {"http.route": "/v1", "http.response.status_code": 200}
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_call_without_a_trace_begins_one_if_the_sampler_says_so():
    recorder = Recorder(ON)
    recorder.serve()
    recorder.serve("of another form")
    assert [span.parent for span in recorder.found] == [None, None]


@pytest.mark.parametrize(
    ("sampler", "given", "goes_on"),
    [(OFF, None, None), (ON, UNSAMPLED, UNSAMPLED), (TraceIdRatioBased(0.0), SAMPLED, UNSAMPLED)],
    ids=["none", "not sampled by the caller", "not sampled here"],
)
def test_a_call_that_is_not_sampled_has_no_span(sampler, given, goes_on):
    recorder = Recorder(sampler)
    headers, context = recorder.serve(given)
    assert (recorder.found, context.is_valid, headers.get("traceparent")) == ((), False, goes_on)


async def test_a_span_of_http_has_the_path_and_the_scheme_of_its_request():
    async def answer(call):
        return Response()

    recorder = Recorder(ON)
    endpoints = Endpoints(StubAccess(), KeptLog(), 1024, spans=recorder.spans)
    async with browser_of(Router([endpoints.route("/{name}/echo", answer)]), **{"x-api-key": "predict"}) as client:
        await client.post("/digits/echo")
    (span,) = recorder.found
    wanted = {"http.route": "/{name}/echo", "url.path": "/digits/echo", "url.scheme": "http"}
    assert span.attributes.items() >= wanted.items()


@pytest.mark.parametrize(
    ("error", "status", "is_error"),
    [
        (KeyError("secret"), 500, True),
        (Refusal(429, "too many"), 429, False),
        (Refusal(503, "no broker"), 503, True),
        (asyncio.CancelledError(), 499, False),
    ],
)
def test_a_span_ends_with_the_status_of_what_ends_its_call(error, status, is_error):
    def work(_):
        raise error

    recorder = Recorder(ON)
    with pytest.raises(type(error)):
        recorder.serve(work=work)
    (span,) = recorder.found
    assert span.attributes["http.response.status_code"] == status
    assert (span.status.status_code is trace.StatusCode.ERROR) == is_error
    assert "secret" not in str(dict(span.attributes)) + str(span.events)
