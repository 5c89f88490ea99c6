"""A sampled query is one trace through all processes, which agrees with the records; one that is not leaves none.

The judge is a collector in the test, and a Jaeger where there is one: `docs/how-to/trace-a-query.md` says how to build
it. It is looked for in $CLIPPER_JAEGER, on the path, and in ~/.cache/clipper-stream.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from builders.otlp import Collector, Jaeger, SeenSpan, collecting
from e2e.any_client import AnyClient, Record
from e2e.gateways import Deployment, Gateway, client_of, deployed
from e2e.programs import until
from open_inference.grpc import protocol as oip
from open_inference.grpc.service import GRPCInferenceServiceStub

from clipper_agents.broker.properties import free_port
from clipper_topics.connection import KafkaConnection
from clipper_topics.trace_context import TRACED_ROWS, rows_in_header

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CONFIGURATION = Path(__file__).with_name("traces.toml")
PREDICT = "POST /v1/applications/{name}/predict"
CLOCK_NS = 2_000_000
"""By how much times of two processes, or from two clocks, may differ; broker's are in milliseconds."""
JAEGER = "jaeger-all-in-one"


@dataclass(frozen=True)
class Judge:
    """Whoever has the spans.

    Attributes:
        url: Where exporters send them.
        trace: The spans of a trace that have come.
    """

    url: str
    trace: Callable[[str], list[SeenSpan]]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module", params=["collector", "jaeger"])
def judge(request: pytest.FixtureRequest) -> Iterator[Judge]:
    if request.param == "collector":
        collector: Collector = request.getfixturevalue("collector")
        yield Judge(collector.url, collector.trace)
        return
    found = os.environ.get("CLIPPER_JAEGER") or shutil.which(JAEGER)
    program = Path(found) if found else Path.home() / ".cache" / "clipper-stream" / JAEGER
    if not program.exists():
        pytest.skip("there is no Jaeger: docs/how-to/trace-a-query.md says how to build it")
    with _jaeger(program) as running:
        yield running


@contextmanager
def _jaeger(program: Path) -> Iterator[Judge]:
    flags = (
        "query.http-server", "collector.otlp.http", "admin.http", "collector.otlp.grpc", "query.grpc-server",
        "collector.grpc-server", "collector.http-server",
    )  # fmt: skip
    ports = {flag: free_port() for flag in flags}
    with subprocess.Popen(
        [program, *(f"--{flag}.host-port=127.0.0.1:{port}" for flag, port in ports.items())],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            until("Jaeger serves", lambda: _answers(ports["admin.http"]))
            query = Jaeger(f"http://127.0.0.1:{ports['query.http-server']}")
            yield Judge(f"http://127.0.0.1:{ports['collector.otlp.http']}", query.trace)
        finally:
            process.kill()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def deployment(kafka: KafkaConnection, tmp_path_factory: pytest.TempPathFactory, judge: Judge) -> Iterator[Deployment]:
    """Its gateway begins no trace of its own."""
    variables = {
        "CLIPPER_GATEWAY_ENABLED": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": judge.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
    }
    with deployed(kafka, tmp_path_factory.mktemp("traces"), CONFIGURATION, **variables) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def second(deployment: Deployment) -> Iterator[Gateway]:
    """A gateway that begins a trace with each call."""
    with deployment.gateway("second", OTEL_TRACES_SAMPLER="parentbased_always_on") as gateway:
        yield gateway


@pytest.fixture
def client(deployment: Deployment) -> Iterator[httpx.Client]:
    with client_of(deployment.url) as client:
        yield client


def context(flags: str = "01") -> tuple[str, str]:
    """A new trace, and the header of a call in it."""
    trace_id = secrets.token_hex(16)
    return trace_id, f"00-{trace_id}-{secrets.token_hex(8)}-{flags}"


def ask(client: httpx.Client, name: str, traceparent: str | None = None, **body: Any) -> dict[str, Any]:
    """The answer to a query."""
    headers = {} if traceparent is None else {"traceparent": traceparent}
    answer = client.post(PREDICT.removeprefix("POST ").format(name=name), json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def whole_trace(judge: Judge, trace_id: str, *names: str) -> list[SeenSpan]:
    """The spans of a trace, once those are among them whose names end so."""

    def found() -> list[SeenSpan] | None:
        spans = judge.trace(trace_id)
        ends = [span.name.split()[0] + span.name.partition(" ")[1] + span.name.rpartition(".")[2] for span in spans]
        return spans if all(any(end.endswith(name) for end in ends) for name in names) else None

    return until(f"{names} in trace {trace_id}", found, 60.0) or []


class Trace:
    """The spans of one trace, by name."""

    def __init__(self, spans: list[SeenSpan], prefix: str) -> None:
        self.spans, self._by_name = spans, defaultdict[str, list[SeenSpan]](list)
        for span in spans:
            self._by_name[span.name.replace(f"{prefix}.", "")].append(span)

    def all(self, name: str) -> list[SeenSpan]:
        """All spans of a name, without the prefix of topics."""
        return self._by_name[name]

    def __getitem__(self, name: str) -> SeenSpan:
        (span,) = self._by_name[name]
        return span

    @property
    def names(self) -> dict[str, int]:
        """How many there are of each name."""
        return {name: len(spans) for name, spans in self._by_name.items() if spans}


OF_ROUTER = ("decode", "decide", "combine", "record predictions")
OF_HOST = ("queue", "batch", "model")
OF_REQUEST = ("send requests.sum.1", *OF_HOST, "send outputs", "process outputs")
CASES = {"a model in a host": ("hosted", [1, 2]), "models in a host and in the router": ("both", [4, 4])}


@pytest.mark.parametrize("case", CASES)
def test_a_sampled_query_is_one_trace_that_agrees_with_its_records(deployment, client, judge, case):
    name, row = CASES[case]
    trace_id, traceparent = context()
    answer = ask(client, name, traceparent, input=row)
    spans = whole_trace(judge, trace_id, "process queries", "send outputs", "process outputs", PREDICT.split()[1])
    trace = Trace(spans, deployment.catalogue.prefix)
    hosts = OF_HOST if name == "both" else ()
    expected = [PREDICT, "send queries", "process queries", *OF_ROUTER, *OF_REQUEST, *hosts]
    assert trace.names == {each: expected.count(each) for each in expected}
    check_family(trace, traceparent)
    check_order(trace)
    with AnyClient(deployment.environ["KAFKA_BOOTSTRAP_SERVERS"]) as reader:
        check_records(trace, Records(reader, deployment, answer["query_id"], trace_id))


def check_family(trace: Trace, traceparent: str) -> None:
    """Check kinds, services and parents."""
    server, query = trace[PREDICT], trace["process queries"]
    request, outputs = trace["send requests.sum.1"], trace["send outputs"]
    assert server.parent_id == traceparent.split("-")[2]
    parents = {
        "send queries": server, "process queries": trace["send queries"], **dict.fromkeys(OF_ROUTER, query),
        "send requests.sum.1": query, "send outputs": request, "process outputs": outputs,
    }  # fmt: skip
    assert {name: trace[name].parent_id for name in parents} == {name: span.span_id for name, span in parents.items()}
    for batch in trace.all("batch"):
        is_hosted = batch.service == "clipper-host"
        (model,) = [span for span in trace.all("model") if span.parent_id == batch.span_id]
        (queue,) = [span for span in trace.all("queue") if span.service == batch.service]
        assert batch.parent_id == queue.parent_id == (request if is_hosted else query).span_id
        assert model.attributes["clipper.model"] == ("sum:1" if is_hosted else "three:1")
    kinds = {"POST": "SERVER", "send": "PRODUCER", "record": "PRODUCER", "process": "CONSUMER"}
    for span in trace.spans:
        assert span.kind == kinds.get(span.name.split()[0], "INTERNAL"), span
        assert not span.is_error
    services = {PREDICT: "gateway", "send queries": "gateway", "send outputs": "host"}
    assert {name: trace[name].service.removeprefix("clipper-") for name in services} == services
    assert {trace[name].service for name in (*OF_ROUTER, "process outputs")} == {"clipper-router"}


def check_order(trace: Trace) -> None:
    """Check that what was later is later."""
    steps = [
        trace[PREDICT].start_ns, trace["send queries"].start_ns, trace["process queries"].start_ns,
        trace["decode"].start_ns, trace["decode"].end_ns, trace["decide"].start_ns, trace["decide"].end_ns,
        trace["send requests.sum.1"].start_ns,
    ]  # fmt: skip
    (batch,) = [span for span in trace.all("batch") if span.service == "clipper-host"]
    (queue,) = [span for span in trace.all("queue") if span.service == "clipper-host"]
    (model,) = [span for span in trace.all("model") if span.service == "clipper-host"]
    steps += [queue.start_ns, queue.end_ns, batch.start_ns, model.start_ns, model.end_ns]
    steps += [trace["send outputs"].start_ns, trace["process outputs"].start_ns]
    ends = [trace["combine"].start_ns, trace["combine"].end_ns, trace["record predictions"].start_ns]
    ends += [trace["record predictions"].end_ns, trace["process queries"].end_ns]
    for earlier, later in zip([*steps, *ends], [*steps[1:], *ends], strict=False):
        assert earlier <= later + CLOCK_NS
    assert model.end_ns <= batch.end_ns + CLOCK_NS
    for name in (*OF_ROUTER, "send requests.sum.1", "process outputs"):
        assert trace[name].start_ns >= trace["process queries"].start_ns - CLOCK_NS
        assert trace[name].end_ns <= trace["process queries"].end_ns + CLOCK_NS


class Records:
    """The records of one query, as the topics have them."""

    def __init__(self, reader: AnyClient, deployment: Deployment, query_id: str, trace_id: str) -> None:
        catalogue = deployment.catalogue
        self.query = _about(reader, catalogue.queries, query_id)
        self.prediction = _about(reader, catalogue.predictions, query_id)
        self.request = _traced(reader, catalogue.requests("sum", "1"), trace_id)
        self.outputs = _traced(reader, catalogue.outputs, trace_id)


def _about(reader: AnyClient, topic: str, query_id: str) -> Record:
    (found,) = [one for one in reader.read(topic) if one.value is not None and one.content["query_id"] == query_id]
    return found


def _traced(reader: AnyClient, topic: str, trace_id: str) -> Record:
    (found,) = [one for one in reader.read(topic) if trace_id.encode() in one.headers.get(TRACED_ROWS, b"")]
    return found


def check_records(trace: Trace, records: Records) -> None:
    """Check places, times and attributes against the records."""
    sent, query, prediction = trace["send queries"], trace["process queries"], records.prediction.content
    assert place_of(sent) == place_of(query) == (records.query.partition, records.query.offset)
    assert place_of(trace["record predictions"]) == (records.prediction.partition, records.prediction.offset)
    assert place_of(trace["send requests.sum.1"]) == (records.request.partition, records.request.offset)
    outputs = trace["send outputs"], trace["process outputs"]
    assert {place_of(span) for span in outputs} == {(records.outputs.partition, records.outputs.offset)}
    context_of_query = f"00-{sent.trace_id}-{sent.span_id}-01".encode()
    assert records.query.headers["traceparent"] == records.prediction.headers["traceparent"] == context_of_query
    for record, span in ((records.request, trace["send requests.sum.1"]), (records.outputs, trace["send outputs"])):
        (named,) = rows_in_header(record.headers[TRACED_ROWS])
        assert (named.start, named.stop, named.traceparent.split("-")[2]) == (0, 1, span.span_id)
    for record, span in ((records.query, sent), (records.prediction, trace["record predictions"])):
        assert span.start_ns - CLOCK_NS <= record.timestamp_ms * 1_000_000 <= span.end_ns + CLOCK_NS
    decision = trace["decide"].attributes
    refs = [f"{one['model']}:{one['version']}" for one in prediction["models"]]
    assert values_of(decision["clipper.models"]) == refs
    assert decision["clipper.propensity"] == prediction["served_propensity"]
    assert decision["clipper.policy"] == prediction["policy"]["name"]
    assert query.attributes["clipper.query_id"] == prediction["query_id"]
    assert query.attributes["clipper.application"] == prediction["application"]
    assert (query.attributes["clipper.rows"], query.attributes["clipper.default"]) == (1, False)
    combine = trace["combine"]
    assert abs(combine.start_ns - prediction["predicted_at_ms"] * 1_000_000) <= CLOCK_NS
    assert combine.attributes["clipper.confidence"] == prediction.get("confidence", 0.0)
    (hosted,) = [one for one in prediction["models"] if one["model"] == "sum"]
    asked_ns = combine.start_ns - hosted["latency_ms"] * 1e6
    assert records.query.timestamp_ms * 1e6 - CLOCK_NS <= asked_ns <= trace["decode"].start_ns + CLOCK_NS
    (batch,) = [span for span in trace.all("batch") if span.service == "clipper-host"]
    assert batch.attributes["clipper.rows"] == 1 <= batch.attributes["clipper.batch.rows"]


def place_of(span: SeenSpan) -> tuple[int, int]:
    return int(span.attributes["messaging.destination.partition.id"]), span.attributes["messaging.kafka.offset"]


def values_of(attribute: Any) -> list[Any]:
    """A list, which Jaeger has as its text."""
    found: list[Any] = json.loads(attribute) if isinstance(attribute, str) else attribute
    return found


def test_rows_of_a_query_are_traced_through_each_batch_that_they_are_in(deployment, client, judge):
    trace_id, traceparent = context()
    answer = ask(client, "hosted", traceparent, inputs=[[3, number] for number in range(5)])
    assert answer["outputs"] == [3.0, 4.0, 5.0, 6.0, 7.0]

    def batched() -> Trace | None:
        trace = Trace(judge.trace(trace_id), deployment.catalogue.prefix)
        rows = sum(batch.attributes["clipper.rows"] for batch in trace.all("batch"))
        return trace if rows == 5 and len(trace.all("batch")) == len(trace.all("send outputs")) else None

    trace = until("all five rows in batches", batched, 60.0)
    assert trace is not None
    batches = trace.all("batch")
    assert all(batch.attributes["clipper.rows"] <= batch.attributes["clipper.batch.rows"] for batch in batches)
    assert {len(trace.all(name)) for name in OF_HOST} == {len(batches)}


def test_an_answer_from_the_cache_has_no_model_in_its_trace(deployment, client, judge):
    ask(client, "hosted", input=[8, 8])
    trace_id, traceparent = context()
    assert ask(client, "hosted", traceparent, input=[8, 8])["models"][0]["cached"] is True
    spans = whole_trace(judge, trace_id, "process queries", PREDICT.split()[1])
    trace = Trace(spans, deployment.catalogue.prefix)
    assert trace.names.keys() == {PREDICT, "send queries", "process queries", *OF_ROUTER}
    assert values_of(trace["combine"].attributes["clipper.models.cached"]) == ["sum:1"]


def test_a_default_has_its_reason_in_the_trace(deployment, client, judge):
    trace_id, traceparent = context()
    assert ask(client, "hosted", traceparent, input="text")["reason"] == "invalid_input"
    trace = Trace(whole_trace(judge, trace_id, "process queries"), deployment.catalogue.prefix)
    assert trace["process queries"].attributes["clipper.default.reason"] == "invalid_input"
    assert not trace.all("combine")


def test_each_batch_is_linked_with_every_sampled_query_in_it(deployment, client, judge):
    traces = [context() for _ in range(30)]
    with ThreadPoolExecutor(10) as pool:
        rows = [[100 + number, number] for number in range(len(traces))]
        asked = [pool.submit(ask, client, "hosted", one[1], input=row) for one, row in zip(traces, rows, strict=True)]
        assert [each.result()["output"] for each in asked] == [sum(row) for row in rows]
    prefix = deployment.catalogue.prefix
    found = [Trace(whole_trace(judge, one, "process outputs", "send outputs"), prefix) for one, _ in traces]
    by_batch = defaultdict[tuple[str, str], list[Trace]](list)
    for trace in found:
        by_batch[next(iter(trace["batch"].links))].append(trace)
    for (trace_id, _), members in by_batch.items():
        (whole,) = whole_trace(judge, trace_id, "process 1")
        assert whole.links == {member["send requests.sum.1"].context for member in members}
        assert whole.attributes["clipper.batch.rows"] == len(members)  # all are sampled, of one row each
        assert (whole.kind, whole.parent_id) == ("CONSUMER", "")


def test_a_gateway_begins_traces_as_its_sampler_says(deployment, second, judge):
    with client_of(second.http) as client:
        answer = ask(client, "hosted", input=[5, 1])
    with AnyClient(deployment.environ["KAFKA_BOOTSTRAP_SERVERS"]) as reader:
        header = _about(reader, deployment.catalogue.queries, answer["query_id"]).headers["traceparent"].decode()
    _, trace_id, parent_id, _ = header.split("-")
    spans = whole_trace(judge, trace_id, "process queries", "process outputs", PREDICT.split()[1])
    trace = Trace(spans, deployment.catalogue.prefix)
    assert (trace[PREDICT].parent_id, trace["send queries"].span_id) == ("", parent_id)


def test_a_call_over_grpc_is_traced_as_one_over_http(second, judge):
    trace_id, traceparent = context()
    request = oip.ModelInferRequest(model_name="hosted")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([9, 9])
    with grpc.insecure_channel(second.grpc) as channel:
        GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=(("traceparent", traceparent),))
    spans = whole_trace(judge, trace_id, "process queries", "ModelInfer")
    (server,) = [span for span in spans if span.kind == "SERVER"]
    (sent,) = [span for span in spans if span.name.startswith("send ") and span.service == "clipper-gateway"]
    assert (server.name, sent.parent_id) == ("inference.GRPCInferenceService/ModelInfer", server.span_id)
    assert (server.parent_id, server.attributes["rpc.method"]) == (traceparent.split("-")[2], "ModelInfer")


def test_feedback_is_in_the_trace_of_its_caller_and_linked_with_its_querys(deployment, client, judge):
    (query_trace, of_query), (feedback_trace, of_feedback) = context(), context()
    answer = ask(client, "hosted", of_query, input=[7, 1])
    told = client.post(
        "/v1/feedback", json={"query_id": answer["query_id"], "label": 8.0}, headers={"traceparent": of_feedback}
    )
    assert told.status_code == 202
    trace = Trace(whole_trace(judge, feedback_trace, "process feedback"), deployment.catalogue.prefix)
    query = Trace(whole_trace(judge, query_trace, "process queries"), deployment.catalogue.prefix)
    sent, processed = trace["send feedback"], trace["process feedback"]
    assert (sent.links, processed.parent_id) == ({query["send queries"].context}, sent.span_id)
    assert place_of(sent) == place_of(processed)
    assert processed.attributes["clipper.feedback.outcome"] == "used"


def test_a_sampled_query_is_the_example_of_its_latency_in_the_routers_metrics(deployment, client):
    trace_id, traceparent = context()
    ask(client, "hosted", traceparent, input=[6, 0])
    (targets,) = deployment.folder.rglob("metrics-targets.json")
    routers = [one["targets"] for one in json.loads(targets.read_text()) if one["labels"]["component"] == "router"]
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}

    def exposed() -> bool:
        texts = [httpx.get(f"http://{one}/metrics", headers=accept, trust_env=False).text for (one,) in routers]
        return any(f'trace_id="{trace_id}"' in text for text in texts)

    until("an exemplar with the trace", exposed, 60.0)


def test_what_is_not_sampled_leaves_no_span_and_no_header(deployment, client, judge):
    (unsampled, traceparent), (sampled, other) = context("00"), context()
    answer = ask(client, "hosted", traceparent, input=[6, 1])
    ask(client, "hosted", input=[6, 2])
    ask(client, "hosted", other, input=[6, 3])
    whole_trace(judge, sampled, "process queries", "process outputs", PREDICT.split()[1])
    assert judge.trace(unsampled) == []
    with AnyClient(deployment.environ["KAFKA_BOOTSTRAP_SERVERS"]) as reader:
        named = [one.headers.get(TRACED_ROWS) for one in reader.read(deployment.catalogue.requests("sum", "1"))]
        assert not any(unsampled.encode() in (value or b"") for value in named)
        prediction = _about(reader, deployment.catalogue.predictions, answer["query_id"])
        assert prediction.headers["traceparent"] == traceparent.encode()


CLIENT = """
import asyncio, sys
from opentelemetry import trace
from clipper_agents.observability.span_exporter import make_provider, use
from clipper_stream.client import Client

provider = make_provider("shop", "shop-1")
tracer = use(provider)


async def main(bootstrap, prefix):
    async with Client(bootstrap, prefix=prefix) as client:
        with tracer.start_as_current_span("checkout") as span:
            answer = await client.predict("hosted", [2.0, 40.0], timeout_s=60)
            await client.feedback(answer, label=42.0)
        await client.feedback(answer, reward=1.0)
        print(f"{span.get_span_context().trace_id:032x}")


asyncio.run(main(*sys.argv[1:]))
provider.shutdown()
"""


def test_a_client_in_an_applications_trace_is_part_of_it(deployment, judge):
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, deployment.environ["KAFKA_BOOTSTRAP_SERVERS"], deployment.catalogue.prefix],
        env={**deployment.environ, "OTEL_TRACES_SAMPLER": "always_on"},
        capture_output=True,
        text=True,
        check=True,
    )
    trace_id = done.stdout.strip()
    whole_trace(judge, trace_id, "process queries", "checkout", "process feedback")

    def both() -> list[SeenSpan] | None:
        spans = [span for span in judge.trace(trace_id) if span.name.endswith(".feedback")]
        return spans if len(spans) == 4 else None

    until("both feedbacks", both)
    trace = Trace(judge.trace(trace_id), deployment.catalogue.prefix)
    first, second = sorted(trace.all("send feedback"), key=lambda span: span.start_ns)
    assert (trace["checkout"].service, trace["send queries"].parent_id) == ("clipper-shop", trace["checkout"].span_id)
    assert (first.parent_id, second.parent_id) == (trace["checkout"].span_id, trace["send queries"].span_id)
    assert (first.links, second.links) == ({trace["send queries"].context}, frozenset())
    outcomes = sorted(span.attributes["clipper.feedback.outcome"] for span in trace.all("process feedback"))
    assert outcomes == ["duplicate", "used"]


def test_a_collector_that_is_away_costs_no_query_its_answer(deployment, client, judge, collector):
    if judge.url != collector.url:
        pytest.skip("of our own collector, which can be ended and begun again")
    collector.close()
    latencies_s = []
    for number in range(40):
        answer = ask(client, "hosted", context()[1], input=[number, 0.5])
        assert answer["output"] == number + 0.5
        latencies_s.append(answer["latency_ms"])
    lines = [line for line in deployment.up.log.splitlines() if "logger=opentelemetry" in line]
    assert len(lines) <= 30
    assert not any("Traceback" in line for line in lines)
    again = Collector(collector.port)
    try:
        trace_id, traceparent = context()
        ask(client, "hosted", traceparent, input=[50, 0.5])
        whole_trace(Judge(again.url, again.trace), trace_id, "process queries", "send outputs", PREDICT.split()[1])
    finally:
        again.close()
