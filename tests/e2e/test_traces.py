import secrets
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest
from builders.otlp import Collector, SeenSpan
from e2e.any_client import AnyClient, Record
from e2e.gateways import Deployment, client_of
from e2e.programs import until
from open_inference.grpc import protocol as oip
from open_inference.grpc.service import GRPCInferenceServiceStub

from clipper_topics.trace_context import TRACED_ROWS, traced_rows

PREDICT = "POST /v1/applications/{name}/predict"
CLOCK_NS = 2_000_000
"""By how much times of two processes, or from two clocks, may differ; broker's are in milliseconds."""


class Trace:
    """The spans of one trace, by name without the prefix of topics; what was not waited for may come later still."""

    def __init__(self, spans: list[SeenSpan], prefix: str, awaited: tuple[str, ...]) -> None:
        self.spans, self._by_name, self._awaited = spans, defaultdict[str, list[SeenSpan]](list), awaited
        for span in spans:
            self._by_name[span.name.replace(f"{prefix}.", "")].append(span)
        self.names = {name: len(spans) for name, spans in self._by_name.items()}

    def __getitem__(self, name: str) -> SeenSpan:
        assert name in self._awaited, f"{name} may come later: wait for it too"
        (span,) = self._by_name[name]
        return span


@dataclass(frozen=True)
class Traces:
    """A deployment whose gateway begins no trace of its own, and whoever gives the spans of a trace that have come."""

    deployment: Deployment
    spans_of: Callable[[str], list[SeenSpan]]

    def whole(self, trace_id: str, *names: str) -> Trace:
        """A trace once spans of these names are in it."""

        def found() -> Trace | None:
            trace = Trace(self.spans_of(trace_id), self.deployment.catalogue.prefix, names)
            return trace if trace.names.keys() >= {*names} else None

        trace = until(f"{names} in trace {trace_id}", found, 60.0)
        assert trace is not None
        return trace

    def records(self, topic: str) -> list[Record]:
        with AnyClient(self.deployment.bootstrap) as reader:
            return reader.read(topic)

    def record(self, topic: str, about: str) -> Record:
        """The one record that has an id of a query in its value, or of a trace among those of its rows."""
        sought = about.encode()
        (found,) = [
            one
            for one in self.records(topic)
            if sought in (one.value or b"") or sought in one.headers.get(TRACED_ROWS, b"")
        ]
        return found


@pytest.fixture(scope="module")
def traces(deployment: Deployment, collector: Collector) -> Traces:
    return Traces(deployment, collector.trace)


def context(flags: str = "01") -> tuple[str, str]:
    """A new trace, and the header of a call in it."""
    trace_id = secrets.token_hex(16)
    return trace_id, f"00-{trace_id}-{secrets.token_hex(8)}-{flags}"


def ask(client: httpx.Client, name: str, traceparent: str | None = None, **body: Any) -> dict[str, Any]:
    headers = {} if traceparent is None else {"traceparent": traceparent}
    answer = client.post(PREDICT.removeprefix("POST ").format(name=name), json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


REQUESTS = "requests.hosted-sum.1"


def test_a_sampled_query_is_one_trace_that_agrees_with_its_records(traces, client):
    trace_id, traceparent = context()
    answer = ask(client, "both", traceparent, input=[4, 4])
    expected = [PREDICT, "send queries", "process queries", f"process {REQUESTS}", "model"]
    trace = traces.whole(trace_id, *expected)
    assert trace.names == dict.fromkeys(expected, 1)
    check_family(trace, traceparent)
    check_records(trace, traces, answer["query_id"])


def check_family(trace: Trace, traceparent: str) -> None:
    """Check kinds, services and parents."""
    server, query = trace[PREDICT], trace["process queries"]
    assert server.parent_id == traceparent.split("-")[2]
    assert trace["send queries"].parent_id == server.span_id
    assert query.parent_id == trace["send queries"].span_id
    assert trace["model"].parent_id == trace[f"process {REQUESTS}"].parent_id == query.span_id
    assert trace["model"].attributes["clipper.model"] == "three:1"
    assert trace[f"process {REQUESTS}"].attributes["clipper.model"] == "hosted-sum:1"
    kinds = {"POST": "SERVER", "send": "PRODUCER", "process": "CONSUMER"}
    for span in trace.spans:
        assert span.kind == kinds.get(span.name.split()[0], "INTERNAL"), span
        assert not span.is_error
    services = {PREDICT: "gateway", "send queries": "gateway", "process queries": "router", "model": "router"}
    services[f"process {REQUESTS}"] = "host"
    assert {name: trace[name].service.removeprefix("clipper-") for name in services} == services


def at_ns(span: SeenSpan, event: str) -> int:
    return next(at for name, at in span.events if name == event)


def check_records(trace: Trace, traces: Traces, query_id: str) -> None:
    """Check places, times and attributes against the records."""
    topics, sent, query = traces.deployment.catalogue, trace["send queries"], trace["process queries"]
    asked, answer = traces.record(topics.queries, query_id), traces.record(topics.predictions, query_id)
    requests, prediction = traces.record(topics.requests("hosted-sum", "1"), sent.trace_id), answer.content
    assert place_of(sent) == place_of(query) == (asked.partition, asked.offset)
    assert query.attributes["clipper.prediction.offset"] == answer.offset
    context_of_query = f"00-{sent.trace_id}-{sent.span_id}-01".encode()
    assert asked.headers["traceparent"] == answer.headers["traceparent"] == context_of_query
    (named,) = traced_rows([(TRACED_ROWS, requests.headers[TRACED_ROWS])])
    assert (named.start, named.stop, f"{named.parent.span_id:016x}") == (0, 1, query.span_id)
    answered_ns = at_ns(query, "answered")
    for record, began_ns, ended_ns in ((asked, sent.start_ns, sent.end_ns), (answer, answered_ns, query.end_ns)):
        assert began_ns - CLOCK_NS <= record.timestamp_ms * 1_000_000 <= ended_ns + CLOCK_NS
    assert query.attributes["clipper.query_id"] == prediction["query_id"]
    assert abs(answered_ns - prediction["predicted_at_ms"] * 1_000_000) <= CLOCK_NS
    (hosted,) = [one for one in prediction["models"] if one["model"] == "hosted-sum"]
    asked_ns = answered_ns - hosted["latency_ms"] * 1e6
    assert asked.timestamp_ms * 1e6 - CLOCK_NS <= asked_ns <= query.start_ns + CLOCK_NS
    rows = trace[f"process {REQUESTS}"].attributes
    assert rows["clipper.rows"] == 1 <= rows["clipper.batch.rows"]


def place_of(span: SeenSpan) -> tuple[int, int]:
    return int(span.attributes["messaging.destination.partition.id"]), span.attributes["messaging.kafka.offset"]


def test_an_answer_from_the_cache_has_no_model_in_its_trace(traces, client):
    ask(client, "hosted", input=[8, 8])
    of_cache, cached = context()
    assert ask(client, "hosted", cached, input=[8, 8])["models"][0]["cached"] is True
    trace = traces.whole(of_cache, "process queries", "send queries", PREDICT)
    assert trace.names.keys() == {PREDICT, "send queries", "process queries"}
    assert {name for name, _ in trace["process queries"].events} == {"decided", "cached output", "answered"}


def test_a_gateway_begins_traces_as_its_sampler_says_and_traces_calls_over_grpc(traces):
    deployment = traces.deployment
    with deployment.gateway("traced", OTEL_TRACES_SAMPLER="parentbased_always_on") as gateway:
        with client_of(gateway.http) as client:
            answer = ask(client, "hosted", input=[5, 1])
        of_grpc, traceparent = context()
        request = oip.ModelInferRequest(model_name="hosted")
        request.inputs.add(name="input", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([9, 9])
        with grpc.insecure_channel(gateway.grpc) as channel:
            GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=(("traceparent", traceparent),))
        header = traces.record(deployment.catalogue.queries, answer["query_id"]).headers["traceparent"].decode()
        _, trace_id, parent_id, _ = header.split("-")
        trace = traces.whole(trace_id, "process queries", "send queries", PREDICT)
        assert (trace[PREDICT].parent_id, trace["send queries"].span_id) == ("", parent_id)
        method = "inference.GRPCInferenceService/ModelInfer"
        trace = traces.whole(of_grpc, "process queries", "send queries", method)
        server = trace[method]
        assert (server.kind, server.attributes["rpc.method"]) == ("SERVER", "ModelInfer")
        assert (server.parent_id, trace["send queries"].parent_id) == (traceparent.split("-")[2], server.span_id)


def test_feedback_is_in_the_trace_of_its_caller_and_linked_with_its_querys(traces, client):
    (query_trace, of_query), (feedback_trace, of_feedback) = context(), context()
    answer = ask(client, "hosted", of_query, input=[7, 1])
    told = client.post(
        "/v1/feedback", json={"query_id": answer["query_id"], "label": 8.0}, headers={"traceparent": of_feedback}
    )
    assert told.status_code == 202
    trace = traces.whole(feedback_trace, "send feedback", "process feedback")
    query = traces.whole(query_trace, "send queries", "process queries")
    sent, processed = trace["send feedback"], trace["process feedback"]
    assert (sent.links, processed.parent_id) == ({query["send queries"].context}, sent.span_id)
    assert place_of(sent) == place_of(processed)
    assert processed.attributes["clipper.feedback.outcome"] == "used"


def test_what_is_not_sampled_leaves_no_span_and_no_header(traces, client):
    (unsampled, traceparent), (sampled, other) = context("00"), context()
    answer = ask(client, "hosted", traceparent, input=[6, 1])
    ask(client, "hosted", input=[6, 2])
    ask(client, "hosted", other, input=[6, 3])
    traces.whole(sampled, "process queries", f"process {REQUESTS}", PREDICT)
    assert traces.spans_of(unsampled) == []
    topics = traces.deployment.catalogue
    named = [one.headers.get(TRACED_ROWS) for one in traces.records(topics.requests("hosted-sum", "1"))]
    assert not any(unsampled.encode() in (value or b"") for value in named)
    assert traces.record(topics.predictions, answer["query_id"]).headers["traceparent"] == traceparent.encode()


def test_a_collector_that_is_away_costs_no_query_its_answer(deployment: Deployment, collector: Collector):
    begun = len(deployment.up.log)
    with client_of(deployment.url) as client:
        collector.close()
        for number in range(20):
            assert ask(client, "hosted", context()[1], input=[number, 0.5])["output"] == number + 0.5
        lines = [line for line in deployment.up.log[begun:].splitlines() if "logger=opentelemetry" in line]
        assert len(lines) <= 30
        assert not any("Traceback" in line for line in lines)
        collector.open()
        trace_id, traceparent = context()
        ask(client, "hosted", traceparent, input=[50, 0.5])
        Traces(deployment, collector.trace).whole(trace_id, "process queries", f"process {REQUESTS}", PREDICT)
