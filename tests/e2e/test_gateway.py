import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from e2e.gateways import FREE_PORTS, WITH_GATEWAY, Deployment, Gateway, client_of, deployed, metric, readiness
from e2e.programs import Program, environment, reserved_port, run, until
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from tritonclient.http import InferenceServerClient, InferenceServerException, InferInput, InferRequestedOutput

from clipper_agents import exits

CONSOLE = "https://console.example"
PREDICT = "/v1/applications/{name}/predict"


@pytest.fixture(scope="module")
def second(deployment: Deployment) -> Iterator[Gateway]:
    with deployment.gateway("second", CLIPPER_GATEWAY_CORS_ORIGINS=CONSOLE) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def other(second: Gateway) -> Iterator[httpx.Client]:
    with client_of(second.http) as client:
        yield client


def ask(client: httpx.Client, name: str = "sums", /, *, headers: Any = None, **body: Any) -> httpx.Response:
    return client.post(PREDICT.format(name=name), json=body, headers=headers)


INVALID = {"output": -1, "default": True, "reason": "invalid_input"}
UNSURE = {"output": -1, "default": True, "reason": "low_confidence"}
ASKED = {
    "a row": ("sums", {"input": [1, 2]}, {"output": 3.0}),
    "rows": ("sums", {"inputs": [[1, 2], [3, 4], [5, 6]]}, {"outputs": [3.0, 7.0, 11.0]}),
    "a row of a context": ("sums", {"input": [1, 3], "context": "ada"}, {"output": 4.0, "context": "ada"}),
    "a model by its name": ("sums", {"input": [1, 4], "models": ["sum"]}, {"policy": {"name": "named"}}),
    "an id of the caller's": ("sums", {"input": [1, 5], "query_id": "mine"}, {"output": 6.0, "query_id": "mine"}),
    "a row for the application of the path": ("sums", {"input": [1, 7], "application": "sums"}, {"output": 8.0}),
    "a strict question": ("sums", {"input": [1, 6], "strict": True}, {"output": 7.0}),
    "text for numbers": ("sums", {"input": "text"}, (400, "float32")),
    "text for numbers, for its default": ("sums", {"input": "text", "strict": False}, INVALID),
    "a model that is none": ("sums", {"input": [1], "models": ["who:1"]}, (404, "who:1")),
    "what models disagree about": ("unsure", {"input": [1]}, UNSURE),
    "an unknown application": ("nobody", {"input": [1]}, (404, "GET /v1/applications")),
    "another application than that of the path": ("sums", {"input": [1], "application": "unsure"}, (400, "unsure")),
    "an unknown field": ("sums", {"input": [1], "colour": "red"}, (400, "colour")),
    "no rows": ("sums", {}, (400, "neither input nor inputs")),
    "a strict question that models disagree about": ("unsure", {"input": [1], "strict": True}, (503, "threshold 0.9")),
}


@pytest.mark.parametrize("case", ASKED)
def test_a_question_is_answered_with_its_prediction_or_told_why_not(client, other, case):
    name, body, expected = ASKED[case]
    for each in (client, other):
        answer = ask(each, name, **body)
        found, kind = answer.json(), answer.headers["content-type"]
        if isinstance(expected, dict):
            assert (answer.status_code, kind) == (200, "application/json")
            assert found == found | {"application": name} | expected
        else:
            assert (answer.status_code, kind) == (expected[0], "application/problem+json")
            assert expected[1] in found["error"]


def test_feedback_is_learned_and_every_gateway_knows_of_it(client, other):
    first, second = ask(client, input=[2, 2]).json(), ask(client, input=[2, 3], context="bob").json()
    given = [
        {"query_id": first["query_id"], "label": 4.5, "ack": True},
        {"query_id": second["query_id"], "application": "sums", "context": "bob", "reward": 1.0, "ack": True},
    ]
    told = client.post("/v1/feedback", json=given)
    assert (told.status_code, told.json()) == (202, {"accepted": 2})
    for each in (client, other):
        assert feedback_about(each, first["query_id"]).items() >= {"label": 4.5, "outcome": "applied"}.items()
        about = feedback_about(each, second["query_id"], context="bob")
        assert about.items() >= {"reward": 1.0, "outcome": "applied"}.items()
    neither = other.post("/v1/feedback", json=[*given, {"query_id": first["query_id"]}])
    assert (neither.status_code, "label" in neither.json()["error"]) == (400, True)


def feedback_about(client: httpx.Client, query_id: str, **of: str) -> dict[str, Any]:
    """The one feedback about a query, once its outcome is known."""

    def found() -> dict[str, Any] | None:
        status = client.get(f"/v1/queries/{query_id}", params={"application": "sums", **of}).json()
        return next((one for one in status.get("feedback", ()) if "outcome" in one), None)

    return until(f"what became of the feedback about {query_id}", found) or {}


def test_an_answer_may_be_fetched_later_at_any_gateway(deployment, client, other):
    where = "/v1/queries/later-1?application=held"
    with ThreadPoolExecutor() as pool:
        with deployment.holding():
            asked = pool.submit(ask, client, "held", input=[3, 1], query_id="later-1")
            for each in (client, other):
                until("the logs have it", lambda client=each: client.get(where).status_code == 202)
                assert each.get(where).json() == {"query_id": "later-1"}
            later = f"{where}&wait_s=50"
            polls = [pool.submit(each.get, later) for each in (client, other)]
        found = [each.result() for each in polls]
    assert [each.status_code for each in found] == [200, 200]
    prediction = asked.result().json()
    assert prediction["output"] == 4.0
    assert [each.json()["prediction"] for each in found] == [prediction] * 2


def test_a_repeat_has_the_same_bytes_at_every_gateway(deployment, second, client, other):
    key = {"idempotency-key": "order-17"}
    first = ask(client, input=[4, 1], headers=key)
    assert first.json().items() >= {"query_id": "order-17", "output": 5.0}.items()
    for each in (client, other):
        repeat, different = ask(each, input=[4, 1], headers=key), ask(each, input=[4, 2], headers=key)
        assert (repeat.status_code, repeat.content) == (200, first.content)
        assert (different.status_code, "order-17" in different.json()["error"]) == (422, True)
    with ThreadPoolExecutor() as pool:
        with deployment.holding():
            own = {"idempotency-key": "order-18"}
            repeats = [pool.submit(ask, each, "held", input=[4, 3], headers=own) for each in [client, other] * 4]
            until("one of them waits", lambda: metric(second.metrics, "clipper_gateway_in_flight"))
        answers = {(each.result().status_code, each.result().content) for each in repeats}
    assert [status for status, _ in answers] == [200]


def test_a_gateway_that_is_told_to_end_answers_what_is_open(deployment):
    with deployment.gateway("third") as gateway, client_of(gateway.http) as client, ThreadPoolExecutor() as pool:
        with grpc.insecure_channel(gateway.grpc) as channel:
            health = HealthStub(channel).Watch(HealthCheckRequest(), timeout=100)
            assert next(health).status == HealthCheckResponse.SERVING
            with deployment.holding():
                answer = pool.submit(ask, client, "held", input=[7, 1])
                until("it is asked", lambda: metric(gateway.metrics, "clipper_gateway_in_flight"))
                gateway.program.signal(signal.SIGTERM)
                ends = (503, ["the gateway ends"])
                until("it is not ready", lambda: readiness(gateway.http) == ends)
                assert [each.status for each in health] == [HealthCheckResponse.NOT_SERVING]
                assert readiness(gateway.metrics.removesuffix("/metrics")) == ends
                assert gateway.program.code is None
            assert (answer.result().status_code, answer.result().json()["output"]) == (200, 8.0)
        assert gateway.program.ended() == exits.OK
        assert "Traceback" not in gateway.program.log


def test_a_port_that_is_taken_ends_a_gateway_with_the_setting_to_change(deployment, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("gateway", folder=tmp_path, environ={**deployment.environ, "CLIPPER_GATEWAY_PORT": port})
    errors = [line for line in done.err if line.startswith("error: ")]
    assert (done.code, done.out, len(errors)) == (exits.SETUP, "", 1), done.err
    assert f"127.0.0.1:{port}" in errors[0]
    assert "gateway.port" in errors[0]


def test_gateways_of_one_port_share_its_connections_and_outlive_one_that_is_killed(deployment, tmp_path):
    requests = f'clipper_gateway_requests_total{{application="sums",route="{PREDICT}",status="200"}}'
    with reserved_port() as http, reserved_port() as grpc_port:
        shared = {"PROCESSES": "2", "CONSOLE": "false", "PORT": str(http), "GRPC_PORT": str(grpc_port)}
        settings = {f"CLIPPER_GATEWAY_{name}": value for name, value in shared.items()}
        with deployment.gateway("one", **settings) as one, deployment.gateway("two", **settings) as two:
            assert (one.http, one.grpc) == (two.http, two.grpc)

            def answered() -> list[float]:
                with client_of(one.http) as connection:
                    assert ask(connection, input=[9, 1]).json()["output"] == 10.0
                return [metric(each.metrics, requests) for each in (one, two)]

            until("both have answered", lambda: all(answered()))
            one.program.signal(signal.SIGKILL)
            one.program.ended()
            before = metric(two.metrics, requests)
            for _ in range(10):
                with client_of(two.http) as connection:
                    assert ask(connection, input=[9, 2]).json()["output"] == 11.0
            assert metric(two.metrics, requests) == before + 10


def test_metrics_count_requests_by_route_application_and_status(second, other):
    route = PREDICT.format(name="{name}")
    of = 'clipper_gateway_requests_total{{application="{}",route="{}",status="{}"}}'
    series = [of.format(name, route, status) for name, status in (("sums", 200), ("sums", 400), ("", 404))]
    before = {one: metric(second.metrics, one) for one in series}
    assert ask(other, input=[8, 1]).status_code == 200
    assert ask(other, input=[8, 1], colour="red").status_code == 400
    assert ask(other, "a-name-of-the-callers", input=[8, 1]).status_code == 404
    assert {one: metric(second.metrics, one) for one in series} == {one: count + 1 for one, count in before.items()}
    assert metric(second.metrics, f'clipper_gateway_request_seconds_count{{route="{route}"}}') >= 3
    assert metric(second.metrics, "clipper_broker_reachable") == 1
    assert metric(second.metrics, "clipper_gateway_in_flight") == 0


def test_a_gateway_serves_before_there_is_a_broker(tmp_path):
    with reserved_port() as nobody:
        environ = environment(**FREE_PORTS, KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{nobody}")
        with Program("gateway", folder=tmp_path, environ=environ) as program:
            with client_of(program.ready()["http"]) as client:
                assert client.get("/livez").status_code == client.get("/v2/health/live").status_code == 200
                ready, answer = client.get("/readyz"), ask(client, input=[1])
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            assert {"the topics are not connected", "the applications are not read yet"} <= {*ready.json()["reasons"]}
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            program.signal(signal.SIGTERM)
            assert program.ended() == exits.OK


def test_pages_of_a_configured_origin_may_ask_and_no_others(other):
    wanted = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,idempotency-key"}
    for origin, statuses in ((CONSOLE, [200, 200]), ("https://elsewhere.example", [400, 403])):
        found = [
            other.options(PREDICT.format(name="sums"), headers={"origin": origin, **wanted}),
            ask(other, input=[9, 1], headers={"origin": origin}),
        ]
        assert [each.status_code for each in found] == statuses
        allowed = origin if origin == CONSOLE else None
        assert [each.headers.get("access-control-allow-origin") for each in found] == [allowed, allowed]
        assert "x-request-id" in found[1].headers.get("access-control-expose-headers", "") or not allowed


# --- clients that others wrote ----------------------------------------------------------------------------------------
ROWS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
SUMS = [6.0, 15.0]
WORDS = np.array([["abc"], ["\u4f60\u597d"]], object)
LETTERS = [b"3 letters", b"2 letters"]
FRONT = """
[[application]]
name = "front-NAME"
input = { dtype = "DTYPE" }
models = ["NAME-behind:1"]
policy = { name = "single" }
objective_ms = 20000

[[model]]
name = "NAME-behind"
runtime = "oip"
uri = "URL/v2/models/NAME"
input = { dtype = "DTYPE" }
"""


def triton(deployment: Deployment) -> InferenceServerClient:
    return InferenceServerClient(deployment.url.removeprefix("http://"), network_timeout=60)


def asked(client: Any, name: str, rows: Any, datatype: str, *, binary: bool = True, **options: Any) -> Any:
    tensor = InferInput("input", rows.shape, datatype)
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return client.infer(name, [tensor], **options)


def parameters_of(answer: Any) -> dict[str, Any]:
    return {name: answer.get_response()["parameters"][name] for name in ("default", "models")}


def test_triton_finds_its_server_and_asks_in_binary_and_in_json(deployment):
    with triton(deployment) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert [client.is_model_ready(name) for name in ("sums", "nobody")] == [True, False]
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        described = client.get_model_metadata("sums")
        assert (described["inputs"][0]["datatype"], described["outputs"][0]["name"]) == ("FP32", "output")
        own = {"request_id": "7", "parameters": {"context": "ada"}, "model_version": described["versions"][0]}
        for sent_binary, wanted_binary in ((True, False), (False, True)):
            how = {"binary": sent_binary, "outputs": [InferRequestedOutput("output", binary_data=wanted_binary)]}
            answer = asked(client, "sums", ROWS, "FP32", **own, **how)
            assert (answer.as_numpy("output").tolist(), answer.get_response()["id"]) == (SUMS, "7")
            assert parameters_of(answer) == {"default": False, "models": "sum:1"}
            letters = asked(client, "letters", WORDS, "BYTES", **how).as_numpy("output").tolist()
            assert letters == (LETTERS if wanted_binary else [each.decode() for each in LETTERS])
        for name, rows, datatype, says in (("nobody", ROWS, "FP32", "'nobody'"), ("sums", WORDS, "BYTES", "FP32")):
            with pytest.raises(InferenceServerException, match=says):
                asked(client, name, rows, datatype)


@pytest.mark.slow
def test_a_pipeline_serves_in_front_of_a_pipeline(kafka, deployment, tmp_path):
    of = FRONT.replace("URL", deployment.url)
    fronts = [
        of.replace("NAME", name).replace("DTYPE", dtype) for name, dtype in (("sums", "float32"), ("letters", "text"))
    ]
    (tmp_path / "front.toml").write_text("".join(fronts))
    with deployed(kafka, tmp_path, tmp_path / "front.toml", **WITH_GATEWAY) as front, triton(front) as client:
        answer = asked(client, "front-sums", ROWS, "FP32")
        assert answer.as_numpy("output").tolist() == SUMS
        assert parameters_of(answer) == {"default": False, "models": "sums-behind:1"}
        assert asked(client, "front-letters", WORDS, "BYTES").as_numpy("output").tolist() == LETTERS
