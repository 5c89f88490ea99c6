"""A gateway serves a client that others wrote, as it is, and another pipeline of this project in front of it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from e2e.gateways import WITH_GATEWAY, Deployment, deployed
from tritonclient.http import InferenceServerClient, InferenceServerException, InferInput, InferRequestedOutput

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ROWS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
SUMS = [6.0, 15.0]
WORDS = np.array([["abc"], ["\u4f60\u597d"]], object)
LETTERS = [b"3 letters", b"2 letters"]
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


@pytest.fixture
def client(deployment: Deployment) -> Iterator[InferenceServerClient]:
    with triton(deployment) as client:
        yield client


def triton(deployment: Deployment) -> InferenceServerClient:
    return InferenceServerClient(deployment.url.removeprefix("http://"), network_timeout=60)


def asked(client: Any, name: str, rows: Any, datatype: str, *, binary: bool = True, **options: Any) -> Any:
    tensor = InferInput("input", rows.shape, datatype)
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return client.infer(name, [tensor], **options)


def parameters_of(answer: Any) -> dict[str, Any]:
    return {name: answer.get_response()["parameters"][name] for name in ("default", "models")}


@pytest.mark.parametrize(("sent_binary", "wanted_binary"), [(True, False), (False, True)])
def test_triton_asks_in_binary_and_in_json(client, sent_binary, wanted_binary):
    how = {"binary": sent_binary, "outputs": [InferRequestedOutput("output", binary_data=wanted_binary)]}
    answer = asked(client, "sums", ROWS, "FP32", request_id="7", parameters={"context": "ada"}, **how)
    assert answer.as_numpy("output").tolist() == SUMS
    assert answer.get_response()["id"] == "7"
    assert parameters_of(answer) == {"default": False, "models": "sum:1"}
    letters = asked(client, "letters", WORDS, "BYTES", **how).as_numpy("output").tolist()
    assert letters == (LETTERS if wanted_binary else [each.decode() for each in LETTERS])


def test_triton_finds_its_server_and_models(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert [client.is_model_ready(name) for name in ("sums", "nobody")] == [True, False]
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    described = client.get_model_metadata("sums")
    assert (described["inputs"][0]["datatype"], described["outputs"][0]["name"]) == ("FP32", "output")
    answer = asked(client, "sums", ROWS, "FP32", model_version=described["versions"][0])
    assert answer.as_numpy("output").tolist() == SUMS
    for name, rows, datatype, says in (("nobody", ROWS, "FP32", "'nobody'"), ("sums", WORDS, "BYTES", "FP32")):
        with pytest.raises(InferenceServerException, match=says):
            asked(client, name, rows, datatype)


@pytest.mark.slow
def test_a_pipeline_serves_in_front_of_a_pipeline(kafka, deployment, tmp_path):
    (tmp_path / "front.toml").write_text(FRONT.replace("URL", deployment.url))
    with deployed(kafka, tmp_path, tmp_path / "front.toml", **WITH_GATEWAY) as front, triton(front) as client:
        answer = asked(client, "front", ROWS, "FP32")
        assert answer.as_numpy("output").tolist() == SUMS
        assert parameters_of(answer) == {"default": False, "models": "behind:1"}
        assert asked(client, "front-letters", WORDS, "BYTES").as_numpy("output").tolist() == LETTERS
