import json

import numpy as np
import pytest
from open_inference.openapi.client import AsyncOpenInferenceClient
from open_inference.openapi.core.api_error import ApiError
from open_inference.openapi.types import InferenceRequest
from unit.gateway.rig import refuses
from unit.gateway.wires import ROW, HttpWire, content_of

from clipper_gateway.oip_rest import HEADER_LENGTH
from clipper_stream.models.runtimes.oip_tensors import outputs_of, request_body

ROWS = [[1.0, 2.0], [3.0, 4.0]]
TENSOR = {"name": "input", "datatype": "FP32", "shape": [2, 2], "data": ROWS}
BINARY = {"name": "input", "datatype": "FP32", "shape": [2, 2]}
IMAGE = {"name": "input", "datatype": "BYTES", "shape": [1], "parameters": {"content_type": "base64"}}


@pytest.fixture
async def wire():
    async with HttpWire() as wire:
        yield wire


def body(*tensors, **fields):
    return json.dumps({"inputs": tensors, **fields}).encode()


# --- other people's clients -----------------------------------------------------------------------------------------
async def test_the_clients_of_the_protocol_ask_and_read(wire):
    wire.client.headers = wire.headers
    others = AsyncOpenInferenceClient(base_url="http://127.0.0.1:8080", httpx_client=wire.client)
    await others.check_server_liveness()
    await others.check_server_readiness()
    await others.check_model_readiness("digits")
    await others.check_model_version_readiness("digits", "3")
    server = await others.read_server_metadata()
    assert (server.name, server.extensions) == ("clipper-stream", ["binary_tensor_data"])
    assert (await others.read_model_metadata("digits")).inputs[0].shape == [-1, 2]
    answer = await others.model_infer("digits", request=InferenceRequest.parse_obj({"inputs": [TENSOR]}))
    assert answer.outputs[0].data.__root__ == [1.0, 2.0, 3.0, 4.0]
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
async def test_an_application_elsewhere_asks_by_the_runtime_oip(wire, name, rows, expected):
    wire.calls.answer = {"outputs": [0.5, 1.5]}
    found = await wire.post(request_body(rows, "input", "output", None), name)
    assert wire.calls.query.inputs == expected
    assert outputs_of(found.content, 2, "output") == [0.5, 1.5]


def wanted(binary_data):
    return [{"name": "output", "parameters": {"binary_data": binary_data}}]


@pytest.mark.parametrize(
    ("fields", "is_binary"),
    [
        ({}, False),
        ({"parameters": {"binary_data_output": True}}, True),
        ({"outputs": wanted(binary_data=True)}, True),
        ({"outputs": wanted(binary_data=False), "parameters": {"binary_data_output": True}}, False),
    ],
)
async def test_the_output_is_binary_where_that_is_asked_for(wire, fields, is_binary):
    found = await wire.post(body(TENSOR, **fields))
    kind = "application/octet-stream" if is_binary else "application/json"
    assert (HEADER_LENGTH in found.headers, found.headers["content-type"]) == (is_binary, kind)
    content = content_of(found)
    assert (content["outputs"][0]["data"], "id" in content) == ([1.0, 2.0, 3.0, 4.0], False)


# --- refused requests -----------------------------------------------------------------------------------------------
async def refused(wire, content, error, status=400, model="digits", **headers):
    found = await wire.post(content, model, **headers)
    with refuses(status, error):
        content_of(found)
    assert wire.calls.asked == []


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "the body cannot be used"),
        (b"[1]", "the body cannot be used"),
        (b"\xff", "the body cannot be used"),
        (b'{"inputs": ' + b"[" * 90_000, "the body cannot be used"),
        (
            b'{"inputs":[{"name":"input","datatype":"FP32","shape":[1,2],"data":' + b"[" * 90_000,
            "the body cannot be used",
        ),
        (b'{"inputs":[{"name":"input","datatype":"FP32","shape":[2],"data":[NaN,1]}]}', "the body cannot be used"),
        (body(TENSOR | {"shape": [2.5]}), "the body cannot be used"),
        (body(TENSOR | {"data": None}), "input 'input' has no data"),
        (body(TENSOR, parameters={"binary_data_output": 1}), "give true or false"),
        (body(TENSOR, outputs=wanted("no")), "give true or false"),
        (body(TENSOR, parameters={"features": ["a"]}), "features"),
    ],
)
async def test_a_body_that_is_no_request_is_refused(wire, content, error):
    await refused(wire, content, error)


@pytest.mark.parametrize("length", ["-1", "+1", "1.0", "", "x", "9" * 5000, "100000"])
async def test_a_length_of_the_json_part_that_is_none_is_refused(wire, length):
    await refused(wire, body(TENSOR), "number of bytes of its JSON part", **{HEADER_LENGTH: length})


@pytest.mark.parametrize(
    ("tensor", "tail"),
    [
        (TENSOR, b"1"),
        (BINARY | {"parameters": {"binary_data_size": 16}}, b"1" * 15),
        (BINARY | {"parameters": {"binary_data_size": 15}}, b"1" * 16),
        (BINARY | {"parameters": {"binary_data_size": -1}}, b""),
        (BINARY | {"parameters": {"binary_data_size": True}}, b"1"),
        (BINARY | {"parameters": {"binary_data_size": "16"}}, b"1" * 16),
        (BINARY, b"1" * 16),
        (BINARY | {"parameters": {"shared_memory_region": "r"}}, b""),
    ],
)
async def test_a_binary_part_that_the_tensor_does_not_state_is_refused(wire, tensor, tail):
    head = body(tensor)
    await refused(wire, head + tail, "give data, or binary_data_size", **{HEADER_LENGTH: str(len(head))})


@pytest.mark.parametrize("data", [["/w==="], ["ä"], [1], [["YQ=="]]])
async def test_base64_that_is_none_is_refused(wire, data):
    await refused(wire, body(IMAGE | {"data": data}), "give a flat list of base64 texts", model="images")


async def test_content_of_another_type_is_refused(wire):
    form = {"content-type": "application/x-www-form-urlencoded"}
    await refused(wire, b"a=1", "send application/json", 415, **form)
    for kind in ("application/json", "application/octet-stream", "Application/JSON; charset=utf-8"):
        assert content_of(await wire.post(body(ROW.as_json()), **{"content-type": kind}))["model_name"] == "digits"


async def test_calls_beyond_the_bound_are_refused_before_anything_is_read(wire):
    found = await wire.post(b"{", "full")
    assert (found.status_code, found.headers["retry-after"]) == (429, "2")


async def test_what_is_not_ready_is_503_with_the_reasons(wire):
    wire.reasons = ["no broker answers"]
    for path, content in (
        ("/v2/health/ready", {"ready": False, "reasons": wire.reasons}),
        ("/v2/models/texts/ready", {"name": "texts", "ready": False}),
    ):
        found = await wire.client.get(path, headers=wire.headers)
        assert (found.status_code, found.json()) == (503, content)
