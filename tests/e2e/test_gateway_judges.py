"""A gateway serves clients that others wrote, as they are, and another pipeline of this project in front of it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.http
import tritonclient.http.aio
from e2e.gateways import Gateway, client_of, deployed
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from open_inference.grpc import protocol as oip
from open_inference.grpc.service import GRPCInferenceServiceStub
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.errors import NotFoundError
from open_inference.openapi.types import InferenceRequest, RequestInput, TensorData

from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ROWS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
SUMS = [6.0, 15.0]
WORDS = np.array([["abc"], ["\u4f60\u597d"]], object)
LETTERS = ["3 letters", "2 letters"]
FRONT = """
[[application]]
name = "front"
input = { dtype = "float32" }
models = ["behind:1"]
policy = { name = "single" }
objective_ms = 20000

[[application]]
name = "front-letters"
input = { dtype = "text" }
models = ["letters-behind:1"]
policy = { name = "single" }
objective_ms = 20000

[[model]]
name = "behind"
runtime = "oip"
uri = "URL/v2/models/sums"

[[model]]
name = "letters-behind"
runtime = "oip"
uri = "URL/v2/models/letters"
input = { dtype = "text" }
"""


# in a process of its own: its messages have the names of those that the gateway has, and one process takes one of them
ASK_BY_TRITON = """
import asyncio, json, sys
import numpy as np
import tritonclient.grpc, tritonclient.grpc.aio

def tensor(library, rows, datatype):
    made = library.InferInput("input", rows.shape, datatype)
    made.set_data_from_numpy(rows)
    return made

async def ask_with_asyncio(rows):
    library = tritonclient.grpc.aio
    async with library.InferenceServerClient(sys.argv[1]) as client:
        answer = await client.infer("sums", [tensor(library, rows, "FP32")], client_timeout=60)
        return answer.as_numpy("output").tolist()

library, found = tritonclient.grpc, {}
rows = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
words = np.array([["abc"], ["\\u4f60\\u597d"]], object)
with library.InferenceServerClient(sys.argv[1]) as client:
    ready = client.is_server_ready(), client.is_model_ready("sums")
    found["live, ready, model"] = [client.is_server_live(), *ready]
    found["datatype"] = client.get_model_metadata("sums").inputs[0].datatype
    rows_of = tensor(library, rows, "FP32")
    answer = client.infer("sums", [rows_of], request_id="8", parameters={"context": "ada"}, client_timeout=60)
    found["sums"] = answer.as_numpy("output").tolist()
    found["id"] = answer.get_response().id
    found["models"] = answer.get_response().parameters["models"].string_param
    answer = client.infer("letters", [tensor(library, words, "BYTES")], client_timeout=60)
    found["letters"] = [each.decode() for each in answer.as_numpy("output").tolist()]
    try:
        client.infer("nobody", [rows_of], client_timeout=60)
    except library.InferenceServerException as error:
        found["refused"] = error.status()
found["sums with asyncio"] = asyncio.run(ask_with_asyncio(rows))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def gateway(kafka: KafkaConnection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with deployed(kafka, tmp_path_factory.mktemp("judged")) as deployment, deployment.gateway("judged") as gateway:
        yield gateway


def asked(library: Any, rows: np.ndarray[Any, Any], datatype: str, **options: Any) -> Any:
    tensor = library.InferInput("input", rows.shape, datatype)
    tensor.set_data_from_numpy(rows, **options)
    return tensor


def parameters_of(answer: Any) -> dict[str, Any]:
    return {name: answer.get_response()["parameters"][name] for name in ("default", "models")}


@pytest.mark.parametrize("sent_binary", [True, False])
@pytest.mark.parametrize("wanted_binary", [True, False])
def test_triton_over_http_asks_in_binary_and_in_json(gateway, sent_binary, wanted_binary):
    http = tritonclient.http
    with http.InferenceServerClient(gateway.http.removeprefix("http://"), network_timeout=60) as client:
        rows = asked(http, ROWS, "FP32", binary_data=sent_binary)
        outputs = [http.InferRequestedOutput("output", binary_data=wanted_binary)]
        answer = client.infer("sums", [rows], outputs=outputs, request_id="7", parameters={"context": "ada"})
        assert answer.as_numpy("output").tolist() == SUMS
        assert answer.get_response()["id"] == "7"
        assert parameters_of(answer) == {"default": False, "models": "sum:1"}
        words = asked(http, WORDS, "BYTES", binary_data=sent_binary)
        told = client.infer("letters", [words], outputs=outputs).as_numpy("output").tolist()
        assert [each.decode() if isinstance(each, bytes) else each for each in told] == LETTERS


def test_triton_over_http_finds_its_server_and_models(gateway):
    with tritonclient.http.InferenceServerClient(gateway.http.removeprefix("http://"), network_timeout=60) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("sums")
        assert not client.is_model_ready("nobody")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        described = client.get_model_metadata("sums")
        assert (described["inputs"][0]["datatype"], described["outputs"][0]["name"]) == ("FP32", "output")
        revision = described["versions"][0]
        assert (
            client.infer("sums", [asked(tritonclient.http, ROWS, "FP32")], revision).as_numpy("output").tolist() == SUMS
        )
        with pytest.raises(tritonclient.http.InferenceServerException, match="there is no application 'nobody'"):
            client.infer("nobody", [asked(tritonclient.http, ROWS, "FP32")])
        with pytest.raises(tritonclient.http.InferenceServerException, match="FP32"):
            client.infer("sums", [asked(tritonclient.http, WORDS, "BYTES")])


async def test_triton_over_http_with_asyncio_asks(gateway):
    library = tritonclient.http.aio
    async with library.InferenceServerClient(gateway.http.removeprefix("http://")) as client:
        assert await client.is_server_ready()
        answer = await client.infer("sums", [asked(library, ROWS, "FP32")])
        assert answer.as_numpy("output").tolist() == SUMS


def test_triton_over_grpc_asks(gateway):
    command = [sys.executable, "-c", ASK_BY_TRITON, gateway.grpc]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "live, ready, model": [True, True, True],
        "datatype": "FP32",
        "sums": SUMS,
        "id": "8",
        "models": "sum:1",
        "letters": LETTERS,
        "refused": "StatusCode.NOT_FOUND",
        "sums with asyncio": SUMS,
    }


def test_the_client_of_the_protocol_s_openapi_document_asks(gateway):
    with client_of(gateway.http) as session:
        client = OpenInferenceClient(base_url=gateway.http, httpx_client=session)
        client.check_server_liveness()
        client.check_server_readiness()
        client.check_model_readiness("sums")
        assert client.read_server_metadata().name == "clipper-stream"
        described = client.read_model_metadata("sums")
        client.check_model_version_readiness("sums", described.versions[0])
        data = TensorData(__root__=ROWS.ravel().tolist())
        rows = RequestInput(name="input", shape=[2, 3], datatype="FP32", parameters=None, data=data)
        answer = client.model_infer(
            "sums", request=InferenceRequest(id="9", parameters=None, inputs=[rows], outputs=None)
        )
        assert (answer.id, answer.outputs[0].data.__root__) == ("9", SUMS)
        with pytest.raises(NotFoundError):
            client.check_model_readiness("nobody")


def test_the_protocol_s_stub_and_a_health_probe_are_served(gateway):
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(oip.ServerLiveRequest(), timeout=60).live
        assert stub.ServerReady(oip.ServerReadyRequest(), timeout=60).ready
        assert stub.ModelReady(oip.ModelReadyRequest(name="sums"), timeout=60).ready
        assert stub.ServerMetadata(oip.ServerMetadataRequest(), timeout=60).name == "clipper-stream"
        request = oip.ModelInferRequest(model_name="sums")
        rows = request.inputs.add(name="input", datatype="FP32", shape=[2, 3])
        rows.contents.fp32_contents.extend(ROWS.ravel().tolist())
        answer = stub.ModelInfer(request, timeout=60)
        assert [*answer.outputs[0].contents.fp64_contents] == SUMS
        for service in ("", "inference.GRPCInferenceService"):
            health = HealthStub(channel).Check(HealthCheckRequest(service=service), timeout=60)
            assert health.status == HealthCheckResponse.SERVING


def test_a_pipeline_serves_in_front_of_a_pipeline(kafka, gateway, tmp_path):
    (tmp_path / "front.toml").write_text(FRONT.replace("URL", gateway.http))
    library = tritonclient.http
    with deployed(kafka, tmp_path, tmp_path / "front.toml", CLIPPER_GATEWAY_ENABLED="true") as front:
        client = library.InferenceServerClient(front.url.removeprefix("http://"), network_timeout=60)
        answer = client.infer("front", [asked(library, ROWS, "FP32")])
        assert answer.as_numpy("output").tolist() == SUMS
        assert parameters_of(answer) == {"default": False, "models": "behind:1"}
        words = client.infer("front-letters", [asked(library, WORDS, "BYTES")])
        assert [each.decode() for each in words.as_numpy("output").tolist()] == LETTERS
        client.close()
