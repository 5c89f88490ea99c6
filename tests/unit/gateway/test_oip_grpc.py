"""The Open Inference Protocol over gRPC, and health, as clients that others wrote see them."""

import asyncio
import contextlib
import json
import sys

import grpc
import numpy as np
import pytest
import trustme
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from open_inference.grpc import protocol as oip
from open_inference.grpc.service import GRPCInferenceServiceStub

from clipper_gateway.access import ANYBODY, Caller
from clipper_gateway.errors import Refusal
from clipper_gateway.inference import query_of, response_parameters
from clipper_gateway.oip_grpc import METADATA_BYTES, MOST_WATCHES, SERVICE, GrpcServer
from clipper_stream.client import BrokerUnavailable, PredictionTimeout
from clipper_stream.errors import InvalidSetting
from clipper_topics.manifests import ApplicationManifest, InputSpec
from clipper_topics.prediction import ModelAnswer, PolicyRef, Prediction

INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
MANIFESTS = {
    manifest.name: manifest
    for manifest in (
        ApplicationManifest(name="digits", revision=3, models=["svm:1"], input=InputSpec(shape=[2])),
        ApplicationManifest(name="reviews", models=["lm:1"], input=InputSpec(dtype="text")),
        ApplicationManifest(name="images", models=["cnn:1"], input=InputSpec(dtype="bytes")),
    )
}
SHOP = Caller("shop", frozenset({"digits"}), frozenset({"predict"}))
SERVED = ModelAnswer(model="svm", version="1", propensity=1.0)
AUDITED = ModelAnswer(model="forest", version="2", propensity=1.0, served=False)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class StubApplications:
    """Three applications, one of which is served."""

    def manifest(self, name):
        if name not in MANIFESTS:
            raise Refusal(404, f"there is no application {name}")
        return MANIFESTS[name]

    def is_ready(self, name):
        return name == "digits"


class StubCalls:
    """Answers a query with `outputs`, or with its rows, or as `fails` says, once it is let."""

    def __init__(self):
        self.applications = StubApplications()
        self.asked, self.outputs, self.fails = [], None, None
        self.cancelled, self.let, self.asked_once = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.let.set()

    async def predict(self, caller, query, options):
        caller.require("predict", query.application)
        self.asked.append((query, options))
        self.asked_once.set()
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.fails is not None:
            raise self.fails
        rows = query.inputs or [query.input]
        outputs = self.outputs or [
            np.frombuffer(row, "<f4").tolist() if isinstance(row, bytes) else row for row in rows
        ]
        given = {"output": outputs[0]} if len(outputs) == 1 else {"outputs": outputs}
        return Prediction(
            query_id=query.query_id or "1-a",
            application=query.application,
            confidence=0.75,
            policy=PolicyRef(name="exp3"),
            models=[SERVED, AUDITED],
            latency_ms=4.5,
            **given,
        )


class StubAccess:
    """Lets in anybody, or who has the only key."""

    def __init__(self):
        self.key = None

    async def identify(self, authorization, api_key):
        if self.key is None:
            return ANYBODY
        if self.key not in {authorization, api_key}:
            raise Refusal(401, "give a key", headers={"www-authenticate": "Bearer"})
        return SHOP


class Gateway:
    """A server on a port of its own, with its doubles, and a channel to it."""

    def __init__(self):
        self.calls, self.access, self.reasons, self._ended = StubCalls(), StubAccess(), [], asyncio.Queue()
        self.server = GrpcServer(
            self.calls, self.access, lambda: self.reasons, lambda *call: self._ended.put_nowait(call)
        )

    async def ended(self, calls=1):
        """What was told of the next calls that end, of a single one without a list."""
        told = [await self._ended.get() for _ in range(calls)]
        return told[0] if calls == 1 else told

    @contextlib.asynccontextmanager
    async def running(self, **bounds):
        self.port = await self.server.start("127.0.0.1", 0, **{"max_body_bytes": 65536, "max_calls": 500} | bounds)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as self.channel:
                self.stub, self.health = GRPCInferenceServiceStub(self.channel), HealthStub(self.channel)
                yield self
        finally:
            await self.server.stop(0)


@pytest.fixture(scope="module", autouse=True)
async def one_loop(anyio_backend):
    """One for all tests of this file: gRPC gives late events of a loop that is closed to the loop of the next test."""
    yield  # noqa: PT022 - the loop is there until the fixture ends


@pytest.fixture
async def gateway():
    async with Gateway().running() as gateway:
        yield gateway


def request(model="digits", shape=(1, 2), datatype="FP32", raw=None, parameters=(), **contents):
    made = oip.ModelInferRequest(model_name=model, id="r1")
    made.inputs.add(name="x", datatype=datatype, shape=shape)
    if raw is not None:
        made.raw_input_contents.append(raw)
    for field, values in contents.items():
        getattr(made.inputs[0].contents, field).extend(values)
    for name, value in dict(parameters).items():
        field = {bool: "bool_param", str: "string_param", int: "int64_param", float: "double_param"}[type(value)]
        setattr(made.parameters[name], field, value)
    return made


def one_row(**options):
    return request(fp32_contents=[0.5, 1.0], **options)


async def failure(call):
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


def parameters_of(message):
    return {name: getattr(one, one.WhichOneof("parameter_choice")) for name, one in message.parameters.items()}


# --- rows and outputs -----------------------------------------------------------------------------------------------
async def test_typed_contents_are_answered_by_typed_contents(gateway):
    answer = await gateway.stub.ModelInfer(one_row())
    (query, _), (output,) = gateway.calls.asked[0], answer.outputs
    assert (query.application, query.input, query.inputs) == ("digits", [0.5, 1.0], None)
    assert (answer.model_name, answer.model_version, answer.id) == ("digits", "3", "r1")
    assert (output.name, output.datatype, [*output.shape]) == ("output", "FP64", [1, 2])
    assert [*output.contents.fp64_contents] == [0.5, 1.0]
    assert not answer.raw_output_contents


async def test_raw_contents_are_answered_by_raw_contents(gateway):
    rows = np.asarray([[0.5, 1.0], [0.25, 2.0]], "<f4")
    answer = await gateway.stub.ModelInfer(request(shape=(2, 2), raw=rows.tobytes()))
    query, _ = gateway.calls.asked[0]
    assert query.inputs == [row.tobytes() for row in rows]
    assert np.frombuffer(answer.raw_output_contents[0], "<f8").reshape(2, 2).tolist() == rows.tolist()
    assert answer.outputs[0].contents.ByteSize() == 0


@pytest.mark.parametrize(
    ("outputs", "datatype", "field"),
    [
        ([7], "INT64", "int64_contents"),
        ([True, False], "BOOL", "bool_contents"),
        ([0.5], "FP64", "fp64_contents"),
        (["seven", "acht ü"], "BYTES", "bytes_contents"),
        ([{"label": 7}, None], "BYTES", "bytes_contents"),
    ],
)
async def test_outputs_of_each_kind_are_a_tensor(gateway, outputs, datatype, field):
    gateway.calls.outputs = outputs
    (output,) = (await gateway.stub.ModelInfer(one_row())).outputs
    found = [*getattr(output.contents, field)]
    if parameters_of(output):
        assert parameters_of(output) == {"content_type": "json"}
        found = [json.loads(text) for text in found]
    elif datatype == "BYTES":
        found = [text.decode() for text in found]
    assert (output.datatype, found) == (datatype, outputs)


async def test_every_typed_field_carries_its_datatypes(gateway):
    narrow = {"INT8": "int", "INT16": "int", "INT32": "int", "UINT8": "uint", "UINT16": "uint", "UINT32": "uint"}
    for datatype in (*narrow, "INT64", "UINT64", "FP32", "FP64", "BOOL"):
        field = f"{narrow.get(datatype, datatype.lower())}_contents"
        await gateway.stub.ModelInfer(request(datatype=datatype, **{field: [1, 0]}))
        assert gateway.calls.asked[-1][0].input == [1, 0]


async def test_text_and_bytes_are_rows_raw_or_typed(gateway):
    texts = {"model": "reviews", "datatype": "BYTES", "shape": [2]}
    await gateway.stub.ModelInfer(request(**texts, bytes_contents=[b"gut", "schön".encode()]))
    await gateway.stub.ModelInfer(request(**texts, raw=b"\3\0\0\0gut" + b"\6\0\0\0" + "schön".encode()))
    await gateway.stub.ModelInfer(request(model="images", datatype="BYTES", shape=[1], bytes_contents=[b"\xff\0"]))
    assert [query.inputs or query.input for query, _ in gateway.calls.asked] == [
        ["gut", "schön"],
        ["gut", "schön"],
        {"base64": "/wA="},
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": (1, 3), "fp32_contents": [0.5, 1.0]},
        {"shape": (1, -2), "fp32_contents": [0.5, 1.0]},
        {"shape": (2**62, 2**62), "fp32_contents": [0.5, 1.0]},
        {"shape": (1, 2), "raw": b"1234567"},
        {"shape": (1, 2), "datatype": "FP8", "fp32_contents": [0.5, 1.0]},
        {"shape": (1, 2), "datatype": "INT64", "fp32_contents": [0.5, 1.0]},
        {"shape": (1, 2), "datatype": "INT8", "int_contents": [300, 1]},
        {"shape": (1, 2), "raw": b"12345678", "fp32_contents": [0.5, 1.0]},
        {"shape": (1, 2), "fp32_contents": [0.5, float("nan")]},
        {"shape": (1, 1, 2), "fp32_contents": [0.5, 1.0]},
        {"shape": (1,), "datatype": "BYTES", "bytes_contents": [b"a"]},
        {"model": "reviews", "shape": (1,), "datatype": "BYTES", "raw": b"\xff\xff\xff\xffa"},
        {"model": "reviews", "shape": (1,), "datatype": "BYTES", "bytes_contents": [b"\xff"]},
    ],
)
async def test_a_tensor_that_does_not_fit_is_an_invalid_argument(gateway, wrong):
    assert (await failure(gateway.stub.ModelInfer(request(**wrong)))).code() is INVALID
    assert not gateway.calls.asked
    assert (await gateway.ended())[2] == 400


async def test_inputs_and_outputs_of_other_numbers_or_names_are_refused(gateway):
    none, two, other = oip.ModelInferRequest(model_name="digits"), one_row(), one_row()
    two.inputs.add(name="y", datatype="FP32", shape=[1, 2])
    other.outputs.add(name="scores")
    for wrong in (none, two, other):
        assert (await failure(gateway.stub.ModelInfer(wrong))).code() is INVALID
    fine = one_row()
    fine.outputs.add(name="output")
    await gateway.stub.ModelInfer(fine)


# --- parameters and metadata ----------------------------------------------------------------------------------------
async def test_parameters_say_how_the_query_is_asked(gateway):
    said = {"context": "ada", "deadline_ms": 20, "models": "svm:1, forest", "features": "[1, 0.5]", "strict": True}
    await gateway.stub.ModelInfer(one_row(parameters=said | {"query_id": "order-7", "priority": 1}))
    query, options = gateway.calls.asked[0]
    assert (query.context, query.deadline_ms, query.query_id) == ("ada", 20, "order-7")
    assert (query.models, query.features, options.strict) == (["svm:1", "forest"], [1.0, 0.5], True)


async def test_the_answer_has_parameters_that_say_how_it_was_decided(gateway):
    assert parameters_of(await gateway.stub.ModelInfer(one_row())) == {
        "query_id": "1-a",
        "confidence": 0.75,
        "default": False,
        "policy": "exp3",
        "models": "svm:1",
        "latency_ms": 4.5,
    }


def test_a_default_names_its_reason_and_no_policy_where_none_decided():
    late = Prediction(query_id="1-a", application="digits", output=0, default=True, reason="late")
    said = response_parameters(late)
    assert (said["default"], said["reason"], said["models"], "policy" in said) == (True, "late", "", False)


def test_parameters_of_json_may_be_lists_and_null():
    given = {"models": ["svm:1"], "features": [1, 0.5], "context": None, "strict": None, "binary_data_output": True}
    query, options = query_of("digits", [[0.5], [1.0]], given)
    assert (query.inputs, query.models, query.features, query.context) == ([[0.5], [1.0]], ["svm:1"], [1.0, 0.5], None)
    assert (query.query_id, options.strict, options.headers) == (None, False, [])


@pytest.mark.parametrize(
    "wrong", [{"context": 1}, {"deadline_ms": "soon"}, {"strict": "yes"}, {"features": "[1,"}, {"features": '["a"]'}]
)
async def test_a_parameter_of_another_type_is_refused_with_those_expected(gateway, wrong):
    error = await failure(gateway.stub.ModelInfer(one_row(parameters=wrong)))
    assert error.code() is INVALID
    assert "features: a list of numbers" in error.details()


async def test_an_idempotency_key_is_the_query_id_and_may_not_differ(gateway):
    own = (("idempotency-key", "order-7"),)
    for parameters in ({}, {"query_id": "order-7"}):
        await gateway.stub.ModelInfer(one_row(parameters=parameters), metadata=own)
        assert gateway.calls.asked[-1][0].query_id == "order-7"
    error = await failure(gateway.stub.ModelInfer(one_row(parameters={"query_id": "order-8"}), metadata=own))
    assert error.code() is INVALID


async def test_trace_and_request_id_go_into_the_record_and_come_back(gateway):
    call = gateway.stub.ModelInfer(one_row(), metadata=(("traceparent", TRACE), ("x-request-id", "order-7")))
    await call
    _, options = gateway.calls.asked[0]
    assert options.headers == [("traceparent", TRACE.encode()), ("correlation-id", b"order-7")]
    assert dict(await call.trailing_metadata())["x-request-id"] == "order-7"
    (method, application, status, took_s, caller, request_id) = await gateway.ended()
    assert (method, application, status, caller, request_id) == ("ModelInfer", "digits", 200, "anybody", "order-7")
    assert took_s > 0


async def test_ids_of_another_form_are_left_out_and_replaced(gateway):
    await gateway.stub.ModelInfer(one_row(), metadata=(("traceparent", "00-1-2-3"), ("x-request-id", "a" * 129)))
    _, options = gateway.calls.asked[0]
    made = (await gateway.ended())[5]
    assert (options.headers, len(made)) == ([("correlation-id", made.encode())], 32)


async def test_a_key_opens_what_is_not_public(gateway):
    gateway.access.key = "cs_secret"
    keyed = (("x-api-key", "cs_secret"),)
    await gateway.stub.ServerLive(oip.ServerLiveRequest())
    await gateway.stub.ServerReady(oip.ServerReadyRequest())
    error = await failure(gateway.stub.ModelInfer(one_row()))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert dict(error.trailing_metadata())["www-authenticate"] == "Bearer"
    assert (await failure(gateway.stub.ServerMetadata(oip.ServerMetadataRequest()))).code() is error.code()
    await gateway.stub.ModelInfer(one_row(), metadata=keyed)
    await gateway.stub.ModelInfer(one_row(), metadata=(("authorization", "cs_secret"),))
    other = await failure(gateway.stub.ModelInfer(request(model="reviews"), metadata=keyed))
    assert other.code() is grpc.StatusCode.PERMISSION_DENIED
    assert [call[2] for call in await gateway.ended(7)] == [200, 200, 401, 401, 200, 200, 403]


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "idempotency-key"])
async def test_metadata_that_decides_something_stands_once(gateway, name):
    error = await failure(gateway.stub.ModelInfer(one_row(), metadata=((name, "a"), (name, "b"))))
    assert (error.code(), error.details()) == (INVALID, f"metadata {name} stands twice: send it once")


# --- what there is --------------------------------------------------------------------------------------------------
async def test_metadata_describes_the_server_and_each_application(gateway):
    server = await gateway.stub.ServerMetadata(oip.ServerMetadataRequest())
    assert (server.name, bool(server.version)) == ("clipper-stream", True)
    model = await gateway.stub.ModelMetadata(oip.ModelMetadataRequest(name="digits", version="3"))
    assert (model.name, [*model.versions], model.platform) == ("digits", ["3"], "clipper-stream")
    (taken,), (given,) = model.inputs, model.outputs
    assert (taken.name, taken.datatype, [*taken.shape]) == ("input", "FP32", [-1, 2])
    assert given.name == "output"


async def test_readiness_is_of_the_gateway_and_of_each_application(gateway):
    assert (await gateway.stub.ServerLive(oip.ServerLiveRequest())).live
    assert (await gateway.stub.ServerReady(oip.ServerReadyRequest())).ready
    gateway.reasons = ["no broker answers"]
    assert not (await gateway.stub.ServerReady(oip.ServerReadyRequest())).ready
    assert (await gateway.stub.ModelReady(oip.ModelReadyRequest(name="digits"))).ready
    assert not (await gateway.stub.ModelReady(oip.ModelReadyRequest(name="reviews"))).ready


async def test_an_unknown_application_or_version_is_not_found(gateway):
    other_version = one_row()
    other_version.model_version = "2"
    for call in (
        gateway.stub.ModelInfer(one_row(model="nosuch")),
        gateway.stub.ModelInfer(other_version),
        gateway.stub.ModelReady(oip.ModelReadyRequest(name="nosuch")),
        gateway.stub.ModelMetadata(oip.ModelMetadataRequest(name="digits", version="2")),
    ):
        assert (await failure(call)).code() is grpc.StatusCode.NOT_FOUND
    assert {call[:3] for call in await gateway.ended(4)} >= {("ModelInfer", "nosuch", 404)}


# --- how calls fail -------------------------------------------------------------------------------------------------
async def test_a_refusal_says_when_to_come_again_and_of_which_query(gateway):
    gateway.calls.fails = Refusal(429, "too many wait", retry_after_s=2.0, reason="overloaded")
    error = await failure(gateway.stub.ModelInfer(one_row()))
    assert (error.code(), error.details()) == (EXHAUSTED, "too many wait")
    assert dict(error.trailing_metadata()).items() >= {"retry-after": "2", "reason": "overloaded"}.items()
    gateway.calls.fails = PredictionTimeout("no answer yet", "order-7")
    error = await failure(gateway.stub.ModelInfer(one_row()))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert dict(error.trailing_metadata())["query-id"] == "order-7"


async def test_text_that_metadata_cannot_hold_leaves_the_error_as_it_is(gateway):
    gateway.calls.fails = Refusal(504, "ü" * 10_000, query_id="bestellung ü\n")
    error = await failure(gateway.stub.ModelInfer(one_row()))
    assert (error.code(), {*error.details()}) == (grpc.StatusCode.DEADLINE_EXCEEDED, {"ü"})
    assert "query-id" not in dict(error.trailing_metadata())


async def test_a_kafka_that_is_away_is_logged_and_not_told(gateway, caplog):
    gateway.calls.fails = BrokerUnavailable("kafka-1.internal does not answer")
    error = await failure(gateway.stub.ModelInfer(one_row()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "internal" not in error.details()
    assert "kafka-1.internal" in str(caplog.records[0].fields)


async def test_a_defect_is_logged_with_its_request_and_not_told(gateway, caplog):
    gateway.calls.fails = ZeroDivisionError("secret")
    error = await failure(gateway.stub.ModelInfer(one_row(), metadata=(("x-request-id", "order-7"),)))
    assert (error.code(), "secret" in error.details()) == (grpc.StatusCode.INTERNAL, False)
    assert "order-7" in error.details()
    assert "request_id=order-7" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_a_client_that_gives_up_ends_its_call(gateway):
    gateway.calls.let.clear()
    call = gateway.stub.ModelInfer(one_row())
    await gateway.calls.asked_once.wait()
    call.cancel()
    await gateway.calls.cancelled.wait()
    assert (await gateway.ended())[:3] == ("ModelInfer", "digits", 499)


async def test_the_deadline_of_a_client_is_that_of_its_query(gateway):
    await gateway.stub.ModelInfer(one_row(), timeout=30)
    await gateway.stub.ModelInfer(one_row(parameters={"deadline_ms": 5.0}), timeout=30)
    await gateway.stub.ModelInfer(one_row())
    (short, own, none) = gateway.calls.asked
    assert 0 < short[0].deadline_ms < short[1].timeout_s * 1000 <= 30_100, "gRPC may send it rounded up to a tenth"
    assert own[0].deadline_ms == 5
    assert (none[0].deadline_ms, none[1].timeout_s) == (None, None)


# --- bounds ---------------------------------------------------------------------------------------------------------
async def test_a_message_beyond_the_bound_is_refused_and_logged(gateway):
    error = await failure(gateway.stub.ModelInfer(request(shape=(10_000, 2), fp32_contents=[0.5] * 20_000)))
    assert error.code() is EXHAUSTED
    await gateway.stub.ModelInfer(one_row())
    assert [call[2] for call in await gateway.ended(2)] == [413, 200]


async def test_compressed_messages_are_not_unpacked(gateway):
    error = await failure(gateway.stub.ModelInfer(one_row(), compression=grpc.Compression.Gzip))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not gateway.calls.asked


async def test_a_flood_of_metadata_is_refused(gateway):
    for flood in ((("x-flood", "a" * METADATA_BYTES),), tuple((f"x-{n}", "a") for n in range(2_000))):
        assert (await failure(gateway.stub.ModelInfer(one_row(), metadata=flood))).code() is EXHAUSTED
    await gateway.stub.ModelInfer(one_row(), metadata=(("x-large", "a" * (METADATA_BYTES // 2)),))
    assert len(gateway.calls.asked) == 1


async def test_bytes_that_are_no_message_and_unknown_methods_are_refused(gateway):
    error = await failure(gateway.channel.unary_unary(f"/{SERVICE}/ModelInfer")(b"\xff\xff\xff"))
    assert error.code() is INVALID
    error = await failure(gateway.channel.unary_unary(f"/{SERVICE}/ModelStreamInfer")(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_call_whose_message_never_comes_ends(gateway):
    gateway.server.message_s = 0.05
    assert "was not here" in (await failure(gateway.channel.stream_unary(f"/{SERVICE}/ModelInfer")())).details()
    assert (await gateway.ended())[2] == 408


async def test_calls_beyond_the_bound_are_refused_until_one_has_ended():
    async with Gateway().running(max_calls=1) as gateway:
        gateway.calls.let.clear()
        waits = asyncio.ensure_future(_awaited(gateway.stub.ModelInfer(one_row())))
        await gateway.calls.asked_once.wait()
        assert (await failure(gateway.stub.ServerLive(oip.ServerLiveRequest()))).code() is EXHAUSTED
        gateway.calls.let.set()
        await waits


async def _awaited(call):
    return await call


async def test_connections_beyond_the_bound_are_closed():
    async with Gateway().running(max_calls=1) as gateway:
        await gateway.stub.ServerLive(oip.ServerLiveRequest())
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        assert await reader.read() == b""
        writer.close()
        await gateway.stub.ServerLive(oip.ServerLiveRequest())


# --- health ---------------------------------------------------------------------------------------------------------
async def test_health_follows_the_gateways_readiness(gateway):
    gateway.access.key = "cs_secret"
    for service in ("", SERVICE):
        for reasons, status in (([], "SERVING"), (["no broker answers"], "NOT_SERVING")):
            gateway.reasons = reasons
            found = await gateway.health.Check(HealthCheckRequest(service=service))
            assert HealthCheckResponse.ServingStatus.Name(found.status) == status
    error = await failure(gateway.health.Check(HealthCheckRequest(service="nosuch")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watch_is_told_of_changes_and_ends_with_the_server(gateway):
    watch = gateway.health.Watch(HealthCheckRequest())
    assert (await watch.read()).status == HealthCheckResponse.SERVING
    gateway.reasons = ["no broker answers"]
    assert (await watch.read()).status == HealthCheckResponse.NOT_SERVING
    unknown = gateway.health.Watch(HealthCheckRequest(service="nosuch"))
    assert (await unknown.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
    await gateway.server.stop(60)
    assert await watch.read() is grpc.aio.EOF


async def test_watches_beyond_the_bound_are_refused(gateway):
    watches = [gateway.health.Watch(HealthCheckRequest()) for _ in range(MOST_WATCHES)]
    await asyncio.gather(*(watch.read() for watch in watches))
    assert (await failure(gateway.health.Watch(HealthCheckRequest()).read())).code() is EXHAUSTED
    watches[0].cancel()
    async with asyncio.timeout(30):
        while (await gateway.health.Watch(HealthCheckRequest()).read()) is None:
            await asyncio.sleep(0)


# --- start and end --------------------------------------------------------------------------------------------------
async def test_open_calls_are_answered_while_the_server_ends(gateway):
    gateway.calls.let.clear()
    waits = asyncio.ensure_future(_awaited(gateway.stub.ModelInfer(one_row())))
    await gateway.calls.asked_once.wait()
    ending = asyncio.ensure_future(gateway.server.stop(60))
    await asyncio.sleep(0)
    gateway.calls.let.set()
    assert (await waits).model_name == "digits"
    await ending


async def test_a_port_that_is_taken_says_which_setting_to_change(gateway):
    with pytest.raises(InvalidSetting, match=rf"127.0.0.1:{gateway.port}: .*set gateway.grpc_port"):
        await Gateway().server.start("127.0.0.1", gateway.port, max_body_bytes=1024, max_calls=1)


async def test_tls_needs_a_certificate_that_can_be_read(tmp_path):
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    with pytest.raises(InvalidSetting, match="No such file"):
        async with Gateway().running(tls=(str(certificate), str(key))):
            pass
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    async with Gateway().running(tls=(str(certificate), str(key))) as gateway:
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        async with grpc.aio.secure_channel(f"localhost:{gateway.port}", credentials) as channel:
            assert (await GRPCInferenceServiceStub(channel).ServerLive(oip.ServerLiveRequest())).live


TRITON = """
import json, sys, numpy, tritonclient.grpc as triton
client = triton.InferenceServerClient(sys.argv[1])
numbers = triton.InferInput("x", [2, 2], "FP32")
numbers.set_data_from_numpy(numpy.asarray([[0.5, 1.0], [0.25, 2.0]], numpy.float32))
answer = client.infer("digits", [numbers], request_id="r1", parameters={"context": "ada", "deadline_ms": 50})
texts = triton.InferInput("x", [1], "BYTES")
texts.set_data_from_numpy(numpy.asarray(["schön".encode()], object))
text = client.infer("reviews", [texts], outputs=[triton.InferRequestedOutput("output")])
try:
    client.infer("nosuch", [numbers])
except triton.InferenceServerException as error:
    status = error.status()
print(json.dumps({
    "live": [client.is_server_live(), client.is_server_ready(), client.is_model_ready("digits")],
    "shape": client.get_model_metadata("digits", as_json=True)["inputs"][0]["shape"],
    "rows": answer.as_numpy("output").tolist(),
    "text": text.as_numpy("output")[0].decode(),
    "status": status,
}))
"""


async def test_tritons_client_reads_and_asks(gateway):
    # a process of its own: its messages have the names of the protocol's, and one process can have them once
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", TRITON, f"127.0.0.1:{gateway.port}", stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert json.loads(said) == {
        "live": [True, True, True],
        "shape": ["-1", "2"],
        "rows": [[0.5, 1.0], [0.25, 2.0]],
        "text": "schön",
        "status": "StatusCode.NOT_FOUND",
    }
    query, _ = gateway.calls.asked[0]
    assert (query.context, query.deadline_ms) == ("ada", 50)
