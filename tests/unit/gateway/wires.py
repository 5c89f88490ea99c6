"""Applications behind the Open Inference Protocol, without a pipeline; HTTP and gRPC as one kind of wire to them."""

import asyncio
import base64
import json
from dataclasses import dataclass
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import grpc
import msgspec
import numpy as np
from google.protobuf.json_format import MessageToDict
from grpc_health.v1.health_pb2_grpc import HealthStub
from open_inference.grpc import protocol as oip
from open_inference.grpc.service import GRPCInferenceServiceStub
from starlette.applications import Starlette
from tritonclient.utils import deserialize_bytes_tensor, triton_to_np_dtype
from unit.gateway.rig import KeptLog, StubAccess, browser_of

from clipper_agents.settings.sections import GatewaySection
from clipper_gateway.api import OwnApi
from clipper_gateway.callers import Shares
from clipper_gateway.errors import Refusal
from clipper_gateway.oip_grpc import GrpcServer
from clipper_gateway.oip_rest import HEADER_LENGTH, InferenceEndpoints
from clipper_gateway.rest import Endpoints
from clipper_gateway.server import routes_of
from clipper_topics.manifests import ApplicationManifest, InputSpec
from clipper_topics.prediction import ModelAnswer, PolicyRef, Prediction
from clipper_topics.query import Query

MANIFESTS = {
    "digits": ApplicationManifest(name="digits", revision=3, models=["svm:1"], input=InputSpec(shape=[2])),
    "texts": ApplicationManifest(name="texts", models=["nlp:1"], input=InputSpec(dtype="text"), default_output="?"),
    "images": ApplicationManifest(name="images", models=["cnn:1"], input=InputSpec(dtype="bytes")),
}
MODELS = [
    ModelAnswer(model="svm", version="1", propensity=1.0),
    ModelAnswer(model="forest", version="2", propensity=1.0, served=False),
]
_NAMES = (
    "INVALID_ARGUMENT UNAUTHENTICATED PERMISSION_DENIED NOT_FOUND DEADLINE_EXCEEDED "
    "RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED INTERNAL UNAVAILABLE DEADLINE_EXCEEDED"
)
CODES = dict(zip((400, 401, 403, 404, 408, 413, 429, 500, 503, 504), _NAMES.split(), strict=True))
"""Of gRPC, by the status of HTTP."""


class StubApplications:
    """Three applications, one of which is served."""

    def manifest(self, name):
        if name not in MANIFESTS:
            raise Refusal(404, f"there is no application {name}")
        return MANIFESTS[name]

    def is_ready(self, name):
        return name == "digits"


class StubCalls:
    """Answers a query with its rows, or as `answer` or `fails` says, once it is let; keeps what it was asked."""

    def __init__(self):
        self.applications, self.pipeline, self.shares = StubApplications(), None, Shares()
        self.asked, self.answer, self.fails, self.answered = [], {}, None, {}
        self.cancelled, self.let, self.asked_once = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.let.set()

    @property
    def query(self):
        """The one asked last, as its record has it."""
        fields = msgspec.structs.asdict(self.asked[-1][0])
        return Query(**{name: value for name, value in fields.items() if name != "strict"})

    def admit(self, application, caller):
        if application == "full":
            raise Refusal(429, "too many", retry_after_s=2.0)

    async def predict(self, call, query):
        call.caller.require("predict", query.application)
        self.asked.append((query, call))
        self.asked_once.set()
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.fails is not None:
            raise self.fails
        rows = [query.input] if query.inputs is None else query.inputs
        outputs = [np.frombuffer(row, "<f4").tolist() if isinstance(row, bytes) else row for row in rows]
        about = {"confidence": 0.75, "policy": PolicyRef(name="exp3"), "models": MODELS, "latency_ms": 4.5}
        about["output" if len(outputs) == 1 else "outputs"] = outputs[0] if len(outputs) == 1 else outputs
        return Prediction(query_id=query.query_id or "1-a", application=query.application, **about | self.answer)


@dataclass
class Sent:
    """A tensor of a request: its values, its bytes, or both; by HTTP, values that are bytes go as base64."""

    shape: Any = (1, 2)
    datatype: str = "FP32"
    data: Any = None
    raw: bytes | None = None

    def as_json(self):
        tensor: dict[str, Any] = {"name": "input", "datatype": self.datatype, "shape": [*self.shape]}
        if self.raw is not None:
            tensor["parameters"] = {"binary_data_size": len(self.raw)}
        if self.data is not None:
            tensor["data"] = self.data
            if any(isinstance(each, bytes) for each in self.data):
                tensor["parameters"] = {"content_type": "base64"}
                tensor["data"] = [base64.b64encode(each).decode() for each in self.data]
        return tensor

    def add_to(self, request):
        tensor = request.inputs.add(name="input", datatype=self.datatype, shape=self.shape)
        if self.raw is not None:
            request.raw_input_contents.append(self.raw)
        if self.data is not None:
            values = [each.encode() if isinstance(each, str) else each for each in self.data]
            getattr(tensor.contents, field_of(self.datatype)).extend(values)


ROW = Sent(data=[0.5, 1.0])


PATHS = {
    "ServerLive": "/health/live",
    "ServerReady": "/health/ready",
    "ServerMetadata": "",
    "ModelReady": "/models/{}/ready",
    "ModelMetadata": "/models/{}",
}
"""Of HTTP, by the methods of gRPC."""


class HttpWire:
    """The routes of the protocol, asked in this process."""

    def __init__(self, calls=None, max_body_bytes=2**20):
        self.calls, self.reasons, self.headers = calls or StubCalls(), [], {"x-api-key": "all"}
        endpoints = Endpoints(StubAccess(), KeptLog(), max_body_bytes)
        self.calls.pipeline = self.calls.pipeline or SimpleNamespace(probed=lambda: self.reasons)
        own, inference = OwnApi(self.calls, 60.0), InferenceEndpoints(self.calls)
        self.client = browser_of(Starlette(routes=routes_of(endpoints, own, inference, self.calls.admit)))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.client.aclose()

    async def post(self, body, model="digits", **headers):
        path = f"/v2/models/{model}/infer"
        return await self.client.post(path, content=body, headers=self.headers | headers)

    async def infer(self, *tensors, model="digits", version="", outputs=(), parameters=(), **headers):
        tail = b"".join(each.raw or b"" for each in tensors)
        about = {**dict(parameters), **({"binary_data_output": True} if tail else {})}
        inputs, wanted = [each.as_json() for each in tensors], [{"name": name} for name in outputs]
        head = json.dumps({"id": "r1", "parameters": about, "inputs": inputs, "outputs": wanted}).encode()
        length = {HEADER_LENGTH: str(len(head))} if tail else {}
        return content_of(await self.post(head + tail, of(model, version), **length, **headers))

    async def ask(self, method, model="", version=""):
        found = await self.client.get(f"/v2{PATHS[method].format(of(model, version))}", headers=self.headers)
        return content_of(found)


def of(model, version):
    return f"{model}/versions/{version}" if version else model


def content_of(found):
    """What a response of HTTP holds, with the values of a binary output in their place; a problem is a refusal."""
    length = int(found.headers.get(HEADER_LENGTH, len(found.content)))
    content = json.loads(found.content[:length])
    if "error" in content:
        assert found.headers["content-type"] == "application/problem+json"
        raise Refusal(found.status_code, content["error"], headers={**found.headers, **content})
    if tail := found.content[length:]:
        (output,) = content["outputs"]
        assert output.pop("parameters")["binary_data_size"] == len(tail)
        output["data"] = values_of(output["datatype"], tail)
    return content


class GrpcWire:
    """A server on a port of its own, and a channel to it; `told` is what it has said of the last call."""

    def __init__(self, max_calls=500, **settings):
        self.calls, self.reasons, self.headers = StubCalls(), [], {"x-api-key": "all"}
        self._ended, self._max_calls = asyncio.Queue(), max_calls
        self.section = GatewaySection(grpc_port=0, max_body_bytes=65536, **settings)
        names = attrgetter("route", "application", "status", "started_s", "caller.name", "request_id", "peer")
        log = SimpleNamespace(write=lambda call: self._ended.put_nowait(names(call)))
        self.access = StubAccess()
        self.server = GrpcServer(self.calls, self.access, lambda: self.reasons, log)

    async def __aenter__(self):
        self.port = await self.server.start(self.section, max_calls=self._max_calls)
        self.channel = await grpc.aio.insecure_channel(f"127.0.0.1:{self.port}").__aenter__()
        self.stub, self.health = GRPCInferenceServiceStub(self.channel), HealthStub(self.channel)
        return self

    async def __aexit__(self, *_):
        await self.channel.close()
        await self.server.stop(0)

    async def ended(self):
        return await self._ended.get()

    async def called(self, call):
        response = error = None
        try:
            response = await call
        except grpc.aio.AioRpcError as found:
            error = found
        self.told = await self.ended()
        assert (200 if error is None else error.code().name) == CODES.get(self.told[2], self.told[2])
        if error is not None:
            raise Refusal(self.told[2], error.details(), headers=dict(error.trailing_metadata()))
        return response

    def call(self, method, request, **options):
        return getattr(self.stub, method)(request, metadata=(*self.headers.items(),), **options)

    def inferred(self, *tensors, model="digits", version="", outputs=(), parameters=(), metadata=(), **options):
        request = oip.ModelInferRequest(model_name=model, model_version=version, id="r1")
        for tensor in tensors:
            tensor.add_to(request)
        for name in outputs:
            request.outputs.add(name=name)
        for name, value in dict(parameters).items():
            field = {bool: "bool_param", str: "string_param", int: "int64_param", float: "double_param"}[type(value)]
            setattr(request.parameters[name], field, value)
        return self.stub.ModelInfer(request, metadata=(*self.headers.items(), *metadata), **options)

    async def infer(self, *tensors, model="digits", version="", outputs=(), parameters=(), **headers):
        call = self.inferred(
            *tensors, model=model, version=version, outputs=outputs, parameters=parameters, metadata=headers.items()
        )
        answer = await self.called(call)
        (output,) = answer.outputs
        found = {"name": output.name, "datatype": output.datatype, "shape": [*output.shape]}
        if parameters := parameters_of(output):
            found["parameters"] = parameters
        if answer.raw_output_contents:
            assert output.contents.ByteSize() == 0
            found["data"] = values_of(output.datatype, answer.raw_output_contents[0])
        else:
            values = getattr(output.contents, field_of(output.datatype))
            found["data"] = [each.decode() if isinstance(each, bytes) else each for each in values]
        about = {"model_name": answer.model_name, "model_version": answer.model_version, "id": answer.id}
        return {**about, "parameters": parameters_of(answer), "outputs": [found]}

    async def ask(self, method, model="", version=""):
        given = {"name": model, "version": version} if model else {}
        found = await self.called(self.call(method, getattr(oip, f"{method}Request")(**given)))
        content = MessageToDict(found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        content.pop("properties", None)
        for tensor in content.get("inputs", []) + content.get("outputs", []):
            tensor["shape"] = [*map(int, tensor["shape"])]
        return content


def field_of(datatype):
    """Where the typed values of a datatype are in a message."""
    narrow = {"INT8": "int", "INT16": "int", "INT32": "int", "UINT8": "uint", "UINT16": "uint", "UINT32": "uint"}
    known = (*narrow, "INT64", "UINT64", "FP32", "FP64", "BOOL", "BYTES")
    return f"{narrow.get(datatype, datatype.lower())}_contents" if datatype in known else "fp32_contents"


def parameters_of(message):
    return {name: getattr(one, one.WhichOneof("parameter_choice")) for name, one in message.parameters.items()}


def values_of(datatype, raw):
    """Values as Triton reads them from bytes."""
    if datatype == "BYTES":
        return [each.decode() for each in deserialize_bytes_tensor(raw)]
    return np.frombuffer(raw, triton_to_np_dtype(datatype)).tolist()
