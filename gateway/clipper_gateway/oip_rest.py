"""The Open Inference Protocol V2 over HTTP: an application is a model, its revision the model's version.

    body --> JSON and binary part --> tensor --> rows --> query --> prediction --> tensor --> JSON [and binary part]
                 400 415                400        400      400        429 503 504

Rules of this file:
- A request has one input tensor, `input`; a response has one output tensor, `output`.
- A response is binary only where the request asks for that.

Source: Open Inference Protocol, "HTTP/REST"; Triton, "Binary Tensor Data Extension".
"""

import base64
import re
from importlib.metadata import version
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response

from clipper_gateway.api import decoded
from clipper_gateway.callers import Caller
from clipper_gateway.calls import Calls
from clipper_gateway.errors import Refusal
from clipper_gateway.inference import Inference, check_outputs
from clipper_gateway.rest import HttpCall, json_response
from clipper_gateway.tensors import BYTES, Tensor, bytes_of, tensor_of_bytes, tensor_of_json
from clipper_stream.errors import shown

JSON, BINARY = "application/json", "application/octet-stream"
HEADER_LENGTH = "Inference-Header-Content-Length"
_Length = Annotated[int, Meta(extra_json_schema={"minimum": 1})]
_encode = msgspec.json.Encoder().encode


# --- what a request holds: bounds that only the OpenAPI document has are checked here with better words ---------------
class InputTensor(msgspec.Struct, kw_only=True):
    """Rows of a question, the first dimension."""

    name: Annotated[str, Meta(extra_json_schema={"const": "input"})]
    """There is one input."""
    datatype: str
    """Type of the values; `BYTES` for text, binary and JSON."""
    shape: list[_Length]
    """Lengths, rows first; one numeric row alone may come without its dimension."""
    parameters: dict[str, Any] | None = None
    """`binary_data_size`: its values are so many bytes behind the JSON. `content_type`: `base64` for binary rows."""
    data: list[Any] | None = None
    """The values, flat in row-major order or nested as the shape; absent when they are binary."""


class RequestedOutput(msgspec.Struct, kw_only=True):
    """An output that is asked for."""

    name: Annotated[str, Meta(extra_json_schema={"const": "output"})]
    """There is one output."""
    parameters: dict[str, Any] | None = None
    """`binary_data`: whether its values come as bytes behind the JSON."""


class InferenceRequest(msgspec.Struct, kw_only=True):
    """A question to an application, as a model of the protocol."""

    inputs: Annotated[list[InputTensor], Meta(extra_json_schema={"minItems": 1, "maxItems": 1})]
    """One tensor, whose rows are one query."""
    id: str | None = None
    """Comes back in the answer; the query's id is the parameter `query_id`."""
    parameters: dict[str, Any] | None = None
    """Those of a query, and `binary_data_output`: whether the outputs come as bytes behind the JSON."""
    outputs: list[RequestedOutput] | None = None
    """Absent: the only one there is."""


_requests = msgspec.json.Decoder(InferenceRequest)


class InferenceEndpoints:
    """Handlers of the protocol's paths."""

    def __init__(self, calls: Calls) -> None:
        self._inference = Inference(calls)

    async def server(self, _: HttpCall) -> Response:
        extensions = ["binary_tensor_data"]
        return json_response({"name": "clipper-stream", "version": version("clipper-stream"), "extensions": extensions})

    async def model(self, call: HttpCall) -> Response:
        return json_response(self._inference.metadata(*_about(call)))

    async def model_ready(self, call: HttpCall) -> Response:
        """Answer 200 when a version that may answer for the application is served, else 503."""
        is_ready = self._inference.is_ready(*_about(call))
        return json_response({"name": call.path["name"], "ready": is_ready}, 200 if is_ready else 503)

    async def infer(self, call: HttpCall) -> Response:
        call.caller.require("predict", call.path["name"])
        manifest = self._inference.manifest(*_about(call))
        request, tail = _request_of(call)
        is_binary, tensor = _is_binary(request), _input_of(request, tail)
        parameters, output = await self._inference.infer(call, manifest, tensor, request.parameters or {})
        answer = {"model_name": manifest.name, "model_version": str(manifest.revision), "parameters": parameters}
        if request.id is not None:
            answer["id"] = request.id
        return _response(answer, output, is_binary=is_binary)


def _about(call: HttpCall) -> tuple[Caller, str, str]:
    return call.caller, call.path["name"], call.path.get("version", "")


# --- the request ----------------------------------------------------------------------------------------------------
def _request_of(call: HttpCall) -> tuple[InferenceRequest, memoryview]:
    kind = call.headers.get("content-type", JSON)
    if kind not in {JSON, BINARY} and kind.partition(";")[0].strip().lower() not in {JSON, BINARY}:
        raise Refusal(415, f"content-type {shown(kind)}: send {JSON}, or {BINARY} with the header {HEADER_LENGTH}")
    length = len(call.body)
    stated = call.headers.get(HEADER_LENGTH.lower())
    if stated is not None:
        if not (re.fullmatch("[0-9]{1,12}", stated) and int(stated) <= length):
            what = f"{HEADER_LENGTH} is {shown(stated)}, and the body has {length} bytes"
            raise Refusal(400, f"{what}: give the number of bytes of its JSON part")
        length = int(stated)
    return decoded(_requests, call.body[:length]), memoryview(call.body)[length:]


def _input_of(request: InferenceRequest, tail: memoryview) -> Tensor:
    if len(request.inputs) != 1:
        what = f"the request has {len(request.inputs)} input tensors"
        raise Refusal(400, f"{what}: give one, whose first dimension is the rows")
    given = request.inputs[0]
    parameters = given.parameters or {}
    size = parameters.get("binary_data_size")
    if size is None and given.data is not None and not tail:
        data = given.data
        if given.datatype == BYTES and parameters.get("content_type") == "base64":
            data = _from_base64(given.name, data)
        return tensor_of_json(given.name, given.datatype, given.shape, data)
    if type(size) is int and size == len(tail) and given.data is None:
        return tensor_of_bytes(given.name, given.datatype, given.shape, tail)
    what = f"input {shown(given.name)} has {'no data' if given.data is None else 'data'}"
    found = f"{what}, binary_data_size {shown(size)} and {len(tail)} bytes behind the JSON"
    raise Refusal(400, f"{found}: give data, or binary_data_size and as many bytes behind the JSON part")


def _from_base64(name: str, data: list[Any]) -> list[bytes]:
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (TypeError, ValueError) as error:
        what = f"input {shown(name)} has the content_type base64 and the data {shown(data)}"
        raise Refusal(400, f"{what} ({error}): give a flat list of base64 texts") from error


def _is_binary(request: InferenceRequest) -> bool:
    wanted = (request.parameters or {}).get("binary_data_output", False)
    check_outputs(output.name for output in request.outputs or ())
    for output in reversed(request.outputs or []):
        wanted = (output.parameters or {}).get("binary_data", wanted)
    if not isinstance(wanted, bool):
        raise Refusal(400, f"binary_data is {shown(wanted)}: give true or false")
    return wanted


# --- the response ---------------------------------------------------------------------------------------------------
def _response(answer: dict[str, Any], tensor: Tensor, *, is_binary: bool) -> Response:
    output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
    parameters: dict[str, Any] = {} if tensor.content_type is None else {"content_type": tensor.content_type}
    tail = bytes_of(tensor) if is_binary else b""
    if is_binary:
        parameters["binary_data_size"] = len(tail)
    else:
        output["data"] = tensor.data
    if parameters:
        output["parameters"] = parameters
    answer["outputs"] = [output]
    content = _encode(answer)
    if not is_binary:
        return Response(content, media_type=JSON)
    return Response(content + tail, headers={HEADER_LENGTH: str(len(content))}, media_type=BINARY)
