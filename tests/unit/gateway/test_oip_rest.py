"""The Open Inference Protocol over HTTP, by bodies as clients write them, of an application that answers at once."""

import io
import json
from importlib import metadata
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from open_inference.openapi.client import AsyncOpenInferenceClient
from open_inference.openapi.core.api_error import ApiError
from open_inference.openapi.types import InferenceRequest
from starlette.applications import Starlette
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from clipper_agents.observability.metrics import GatewayMetrics
from clipper_gateway.access import ANYBODY, Caller
from clipper_gateway.errors import Refusal
from clipper_gateway.oip_rest import HEADER_LENGTH, oip_routes
from clipper_gateway.readiness import Readiness
from clipper_gateway.request_log import RequestLog
from clipper_gateway.rest import Endpoints
from clipper_stream.models.runtimes.oip_tensors import outputs_of, request_body
from clipper_topics.manifests import ApplicationManifest, InputSpec
from clipper_topics.prediction import ModelAnswer, PolicyRef, Prediction

APPLICATIONS = {
    "digits": ApplicationManifest(name="digits", revision=3, models=["svm:1"], input=InputSpec(shape=[2])),
    "texts": ApplicationManifest(name="texts", models=["nlp:1"], input=InputSpec(dtype="text"), default_output="?"),
    "images": ApplicationManifest(name="images", models=["cnn:1"], input=InputSpec(dtype="bytes")),
}
INFER = "/v2/models/digits/infer"
ROWS = [[1.0, 2.0], [3.0, 4.0]]
TENSOR = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": ROWS}


class StubApplications:
    """Three applications, of which one is served."""

    def manifest(self, name):
        if name not in APPLICATIONS:
            raise Refusal(404, f"there is no application {name}")
        return APPLICATIONS[name]

    def is_ready(self, name):
        return name == "digits"


class StubCalls:
    """Answers with the sum of each row, or as it is told; keeps what it was asked."""

    def __init__(self):
        self.applications = StubApplications()
        self.asked, self.answer = [], {}

    def admit(self, application):
        if application == "full":
            raise Refusal(429, "too many", retry_after_s=2.0)

    async def predict(self, caller, query, options):
        self.asked.append((query, options))
        if options.strict and self.answer.get("default"):
            raise Refusal(503, "nothing arrived", query_id="0-1", reason="late")
        outputs = {"output": total(query.input)} if query.inputs is None else {"outputs": [*map(total, query.inputs)]}
        return Prediction(query_id=query.query_id or "0-1", application=query.application, **(outputs | self.answer))

    @property
    def query(self):
        return self.asked[-1][0]


class EveryKey:
    """Access by the name of what the key may."""

    is_open = False

    async def identify(self, authorization, api_key):
        if api_key is None:
            raise Refusal(401, "no key")
        return ANYBODY if api_key == "all" else Caller("shop", frozenset({"texts"}), frozenset({api_key}))


def total(row):
    row = np.frombuffer(row, "<f4").tolist() if isinstance(row, bytes) else row
    return sum(row) if isinstance(row, list) else row


@pytest.fixture
def calls():
    return StubCalls()


@pytest.fixture
def reasons():
    return []


@pytest.fixture
def client(calls, reasons):
    log = RequestLog(GatewayMetrics(), APPLICATIONS, io.BytesIO())
    endpoints = Endpoints(EveryKey(), log, max_body_bytes=2**20, origins=frozenset())
    readiness = Readiness(SimpleNamespace(reasons=lambda: reasons))
    app = Starlette(routes=oip_routes(calls, readiness, endpoints.route))
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080", headers={"x-api-key": "all"})


async def inferred(client, path=INFER, /, **request):
    found = await client.post(path, json={"inputs": [TENSOR]} | request)
    assert found.status_code == 200, found.text
    return found.json()


async def error_of(found, status):
    found = await found
    assert found.status_code == status, found.text
    assert found.headers["content-type"] == "application/problem+json"
    return found.json()["error"]


# --- answers --------------------------------------------------------------------------------------------------------
async def test_the_rows_of_a_tensor_are_one_query_and_one_answer(client, calls):
    calls.answer = {
        "confidence": 0.5,
        "policy": PolicyRef(name="exp3"),
        "models": [ModelAnswer(model="svm", version="1", propensity=1.0)],
        "latency_ms": 2.5,
    }
    assert await inferred(client, id="7") == {
        "model_name": "digits",
        "model_version": "3",
        "id": "7",
        "parameters": {
            "query_id": "0-1",
            "confidence": 0.5,
            "default": False,
            "models": "svm:1",
            "latency_ms": 2.5,
            "policy": "exp3",
        },
        "outputs": [{"name": "output", "datatype": "FP64", "shape": [2], "data": [3.0, 7.0]}],
    }
    assert (calls.query.application, calls.query.inputs) == ("digits", ROWS)


@pytest.mark.parametrize("shape", [[1, 2], [2]])
async def test_one_row_is_the_input_of_a_query(client, calls, shape):
    answer = await inferred(client, inputs=[TENSOR | {"shape": shape, "data": [1, 2]}])
    assert (calls.query.input, calls.query.inputs) == ([1, 2], None)
    assert answer["outputs"][0] == {"name": "output", "datatype": "INT64", "shape": [1], "data": [3]}
    assert "id" not in answer


async def test_a_default_output_says_so_and_why(client, calls):
    calls.answer = {"outputs": [None, None], "default": True, "reason": "late"}
    answer = await inferred(client)
    assert answer["parameters"]["default"] is True
    assert answer["parameters"]["reason"] == "late"
    assert answer["outputs"][0]["data"] == ["null", "null"]
    assert answer["outputs"][0]["parameters"] == {"content_type": "json"}


async def test_who_wants_no_default_gets_the_reason(client, calls):
    calls.answer = {"default": True, "reason": "late"}
    found = await client.post(INFER, json={"inputs": [TENSOR], "parameters": {"strict": True}})
    assert (found.status_code, found.json()["reason"]) == (503, "late")


async def test_parameters_are_fields_of_the_query_and_unknown_ones_are_ignored(client, calls):
    parameters = {"context": "ada", "deadline_ms": 20, "query_id": "7", "models": "svm:1, cnn", "features": [0.5]}
    await inferred(client, parameters=parameters | {"priority": 1, "strict": False})
    query, options = calls.asked[0]
    assert (query.context, query.deadline_ms, query.query_id) == ("ada", 20, "7")
    assert (query.models, query.features, options.strict) == (["svm:1", "cnn"], [0.5], False)
    assert options.headers[0][0] == "correlation-id"


@pytest.mark.parametrize(
    "parameters",
    [{"context": 1}, {"deadline_ms": "1"}, {"query_id": 7}, {"models": 1}, {"features": ["a"]}, {"strict": "yes"}],
)
async def test_a_parameter_of_another_type_is_refused(client, parameters):
    asked = client.post(INFER, json={"inputs": [TENSOR], "parameters": parameters})
    assert "cannot be used" in await error_of(asked, 400)


async def test_the_idempotency_key_is_the_id_of_the_query(client, calls):
    headers = {"Idempotency-Key": "order-7"}
    await client.post(INFER, json={"inputs": [TENSOR]}, headers=headers)
    assert calls.query.query_id == "order-7"
    asked = client.post(INFER, json={"inputs": [TENSOR], "parameters": {"query_id": "8"}}, headers=headers)
    assert "differ" in await error_of(asked, 400)


async def test_the_only_output_may_be_asked_for(client):
    assert await inferred(client, outputs=[]) == await inferred(client, outputs=[{"name": "output"}])
    asked = client.post(INFER, json={"inputs": [TENSOR], "outputs": [{"name": "output"}, {"name": "y"}]})
    assert await error_of(asked, 400) == "output 'y': the only one is 'output', ask for it or for none"


# --- other people's clients -----------------------------------------------------------------------------------------
def triton_body(array, *, datatype="FP32", binary_data=True, outputs=None, **options):
    tensor = InferInput("anything", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary_data)
    return InferenceServerClient.generate_request_body([tensor], outputs, **options)


async def asked_by_triton(client, body, length, path=INFER):
    found = await client.post(path, content=body, headers={} if length is None else {HEADER_LENGTH: str(length)})
    assert found.status_code == 200, found.text
    stated = found.headers.get(HEADER_LENGTH)
    assert (found.headers["content-type"] == "application/octet-stream") == (stated is not None)
    return InferenceServerClient.parse_response_body(
        found.content, header_length=None if stated is None else int(stated)
    )


@pytest.mark.parametrize(
    "outputs", [None, [InferRequestedOutput("output")], [InferRequestedOutput("output", binary_data=False)]]
)
@pytest.mark.parametrize("binary_data", [True, False])
async def test_triton_asks_and_reads_in_both_forms(client, outputs, binary_data):
    array = np.array(ROWS, np.float32)
    body, length = triton_body(array, binary_data=binary_data, outputs=outputs, request_id="9")
    answer = await asked_by_triton(client, body, length)
    assert answer.as_numpy("output").tolist() == [3.0, 7.0]
    assert answer.get_response()["id"] == "9"
    assert ("data" in answer.get_output("output")) == (outputs is not None and not outputs[0]._binary)


@pytest.mark.parametrize("binary_data", [True, False])
async def test_triton_asks_about_text(client, calls, binary_data):
    array = np.array(["a", "ä"], object)
    body, length = triton_body(array, datatype="BYTES", binary_data=binary_data)
    answer = await asked_by_triton(client, body, length, "/v2/models/texts/infer")
    assert calls.query.inputs == ["a", "ä"]
    assert answer.as_numpy("output").tolist() == [b"a", "ä".encode()]


async def test_the_clients_of_the_protocol_ask_and_read(client):
    others = AsyncOpenInferenceClient(base_url="http://127.0.0.1:8080", httpx_client=client)
    await others.check_server_liveness()
    await others.check_server_readiness()
    await others.check_model_readiness("digits")
    await others.check_model_version_readiness("digits", "3")
    assert (await others.read_server_metadata()).name == "clipper-stream"
    assert (await others.read_model_metadata("digits")).inputs[0].shape == [-1, 2]
    answer = await others.model_infer("digits", request=InferenceRequest.parse_obj({"inputs": [TENSOR]}))
    assert answer.outputs[0].data.__root__ == [3.0, 7.0]
    with pytest.raises(ApiError, match=r"404.*revision 3"):
        await others.read_model_version_metadata("digits", "2")


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("digits", np.array(ROWS, np.float32), ROWS),
        ("texts", ["a", "b"], ["a", "b"]),
        ("images", [b"\xff", b"a"], [{"base64": "/w=="}, {"base64": "YQ=="}]),
    ],
)
async def test_an_application_elsewhere_asks_by_the_runtime_oip(client, calls, name, rows, expected):
    calls.answer = {"outputs": [0.5, 1.5]}
    found = await client.post(f"/v2/models/{name}/infer", content=request_body(rows, "x", "output", None))
    assert calls.query.inputs == expected
    assert outputs_of(found.content, 2, "output") == [0.5, 1.5]


# --- refused requests -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body cannot be used"),
        (b"[1]", "the body cannot be used"),
        (b"\xff", "the body cannot be used"),
        (b'{"inputs": ' + b"[" * 100_000, "the body cannot be used"),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":' + b"[" * 100_000, "the body cannot be used"),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[NaN,1]}]}', "the body cannot be used"),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2.5],"data":[1,1]}]}', "the body cannot be used"),
        (b'{"inputs":[]}', "the request has 0 input tensors: give one"),
        (json.dumps({"inputs": [TENSOR, TENSOR]}).encode(), "the request has 2 input tensors: give one"),
        (json.dumps({"inputs": [TENSOR | {"data": None}]}).encode(), "input 'x' has no data"),
        (json.dumps({"inputs": [TENSOR | {"shape": [2**62, 2]}]}).encode(), "each from 1 to 2147483648"),
        (json.dumps({"inputs": [TENSOR | {"shape": [-1, 2]}]}).encode(), "each from 1 to 2147483648"),
        (json.dumps({"inputs": [TENSOR | {"shape": [4, 1]}]}).encode(), "nested otherwise"),
        (json.dumps({"inputs": [TENSOR | {"datatype": "BYTES"}]}).encode(), "give text"),
    ],
)
async def test_a_body_that_is_no_request_is_refused(client, calls, body, message):
    assert message in await error_of(client.post(INFER, content=body), 400)
    assert calls.asked == []


@pytest.mark.parametrize("length", ["-1", "+1", "1.0", "", "x", "9" * 5000, "100000"])
async def test_a_length_of_the_json_part_that_is_none_is_refused(client, length):
    body, _ = triton_body(np.array(ROWS, np.float32))
    asked = client.post(INFER, content=body, headers={HEADER_LENGTH: length})
    assert "give the number of bytes of its JSON part" in await error_of(asked, 400)


@pytest.mark.parametrize(
    ("tensor", "tail"),
    [
        (TENSOR, b"1"),
        ({"parameters": {"binary_data_size": 16}}, b"1" * 15),
        ({"parameters": {"binary_data_size": 15}}, b"1" * 16),
        ({"parameters": {"binary_data_size": -1}}, b""),
        ({"parameters": {"binary_data_size": True}}, b"1"),
        ({"parameters": {"binary_data_size": "16"}}, b"1" * 16),
        ({"parameters": {"binary_data_size": 16}, "data": [1]}, b"1" * 16),
        ({}, b"1" * 16),
        ({"parameters": {"shared_memory_region": "r"}}, b""),
    ],
)
async def test_a_binary_part_that_the_tensor_does_not_state_is_refused(client, tensor, tail):
    head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2]} | tensor]}).encode()
    asked = client.post(INFER, content=head + tail, headers={HEADER_LENGTH: str(len(head))})
    assert "give data, or binary_data_size" in await error_of(asked, 400)


@pytest.mark.parametrize(
    "request_part",
    [{"parameters": {"binary_data_output": 1}}, {"outputs": [{"name": "output", "parameters": {"binary_data": "no"}}]}],
)
async def test_whether_the_output_is_binary_is_true_or_false(client, request_part):
    asked = client.post(INFER, json={"inputs": [TENSOR]} | request_part)
    assert "give true or false" in await error_of(asked, 400)


@pytest.mark.parametrize("data", [["/w==="], ["ä"], [1], [["YQ=="]]])
async def test_base64_that_is_none_is_refused(client, data):
    tensor = {"name": "x", "datatype": "BYTES", "shape": [1], "parameters": {"content_type": "base64"}, "data": data}
    asked = client.post("/v2/models/images/infer", json={"inputs": [tensor]})
    assert "give a flat list of base64 texts" in await error_of(asked, 400)


async def test_content_of_another_type_is_refused(client):
    for kind in ("application/json", "application/octet-stream", "Application/JSON; charset=utf-8"):
        found = await client.post(INFER, content=json.dumps({"inputs": [TENSOR]}), headers={"content-type": kind})
        assert found.status_code == 200
    asked = client.post(INFER, content=b"a=1", headers={"content-type": "application/x-www-form-urlencoded"})
    assert "send application/json" in await error_of(asked, 415)


@pytest.mark.parametrize("path", ["", "/ready", "/infer"])
async def test_an_unknown_model_or_version_is_not_found(client, calls, path):
    for name, status in (
        ("digits/versions/3", 200),
        ("digits/versions/2", 404),
        ("digits/versions/x", 404),
        ("y", 404),
    ):
        url = f"/v2/models/{name}{path}"
        found = await (client.post(url, json={"inputs": [TENSOR]}) if path == "/infer" else client.get(url))
        assert found.status_code == status, found.text
    assert len(calls.asked) == (path == "/infer")


@pytest.mark.parametrize(
    ("right", "infer", "look"), [("predict", 200, 200), ("read", 403, 200), ("feedback", 403, 403)]
)
async def test_a_caller_needs_the_right(client, right, infer, look):
    headers = {"x-api-key": right}
    body = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}
    assert (await client.post("/v2/models/texts/infer", json=body, headers=headers)).status_code == infer
    assert (await client.get("/v2/models/texts", headers=headers)).status_code == look
    for path in ("/v2/models/digits", "/v2/models/unknown", "/v2/models/digits/ready"):
        assert (await client.get(path, headers=headers)).status_code == 403


async def test_calls_beyond_the_bound_are_refused_before_anything_is_read(client):
    found = await client.post("/v2/models/full/infer", content=b"{")
    assert (found.status_code, found.headers["retry-after"]) == (429, "2")


# --- health and metadata --------------------------------------------------------------------------------------------
async def test_anybody_may_ask_whether_the_server_lives_and_is_ready(client, reasons):
    del client.headers["x-api-key"]
    assert (await client.get("/v2/health/live")).json() == {"live": True}
    assert (await client.get("/v2/health/ready")).json() == {"ready": True, "reasons": []}
    reasons.append("no broker answers")
    found = await client.get("/v2/health/ready")
    assert (found.status_code, found.json()) == (503, {"ready": False, "reasons": ["no broker answers"]})
    assert (await client.get("/v2/health/live")).status_code == 200
    assert (await client.get("/v2")).status_code == 401


async def test_a_model_is_ready_when_a_version_is_served(client):
    found = await client.get("/v2/models/digits/ready")
    assert (found.status_code, found.json()) == (200, {"name": "digits", "ready": True})
    found = await client.get("/v2/models/texts/ready")
    assert (found.status_code, found.json()) == (503, {"name": "texts", "ready": False})


async def test_server_and_models_are_described(client):
    version = metadata.version("clipper-stream")
    expected = {"name": "clipper-stream", "version": version, "extensions": ["binary_tensor_data"]}
    assert (await client.get("/v2")).json() == expected
    assert (await client.get("/v2/models/texts/versions/1")).json() == {
        "name": "texts",
        "versions": ["1"],
        "platform": "clipper-stream",
        "inputs": [{"name": "input", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "output", "datatype": "BYTES", "shape": [-1]}],
    }
