"""A deployment's gateway and a second one beside it, as their users find them: answers, repeats, waits and ends."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import pytest
from e2e.any_client import AnyClient, Record
from e2e.gateways import FREE_PORTS, Deployment, Gateway, client_of, deployed, events, metric
from e2e.programs import Program, environment, environment_of, run, until
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from clipper_agents import exits
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CONSOLE = "https://console.example"
PREDICT = "/v1/applications/{name}/predict"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EVENTS = {"accept": "text/event-stream"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
def deployment(kafka: KafkaConnection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(kafka, tmp_path_factory.mktemp("gateway"), CLIPPER_GATEWAY_ENABLED="true") as deployment:
        yield deployment


@pytest.fixture(scope="module")
def second(deployment: Deployment) -> Iterator[Gateway]:
    with deployment.gateway("second", CLIPPER_GATEWAY_CORS_ORIGINS=CONSOLE) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def client(deployment: Deployment) -> Iterator[httpx.Client]:
    """Of the gateway that `up` started."""
    with client_of(deployment.url) as client:
        yield client


@pytest.fixture(scope="module")
def other(second: Gateway) -> Iterator[httpx.Client]:
    """Of the second gateway."""
    with client_of(second.http) as client:
        yield client


def ask(client: httpx.Client, name: str = "sums", /, *, headers: Any = None, **body: Any) -> httpx.Response:
    return client.post(PREDICT.format(name=name), json=body, headers=headers)


def feedback_about(client: httpx.Client, query_id: str, **of: str) -> dict[str, Any]:
    """The one feedback about a query, once its outcome is known."""

    def found() -> dict[str, Any] | None:
        status = client.get(f"/v1/queries/{query_id}", params={"application": "sums", **of}).json()
        return next((one for one in status.get("feedback", ()) if "outcome" in one), None)

    return until(f"what became of the feedback about {query_id}", found) or {}


ROWS = {
    "a row": ({"input": [1, 2]}, {"output": 3.0}),
    "rows": ({"inputs": [[1, 2], [3, 4], [5, 6]]}, {"outputs": [3.0, 7.0, 11.0]}),
    "a row of a context": ({"input": [1, 3], "context": "ada"}, {"output": 4.0, "context": "ada"}),
    "a model by its name": ({"input": [1, 4], "models": ["sum"]}, {"output": 5.0, "policy": {"name": "named"}}),
    "an id of the caller's": ({"input": [1, 5], "query_id": "mine"}, {"output": 6.0, "query_id": "mine"}),
    "a strict question": ({"input": [1, 6], "strict": True}, {"output": 7.0}),
    "text for numbers": ({"input": "text"}, {"output": -1, "default": True, "reason": "invalid_input"}),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_question_is_answered_with_its_prediction(client, other, case):
    body, expected = ROWS[case]
    for each in (client, other):
        answer = ask(each, **body)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json() == answer.json() | {"application": "sums"} | expected


REFUSED = {
    "unknown application": ("nobody", {"input": [1]}, 404, "GET /v1/applications"),
    "unknown field": ("sums", {"input": [1], "colour": "red"}, 400, "colour"),
    "no rows": ("sums", {}, 400, "neither input nor inputs"),
    "a strict question that models disagree about": (
        "unsure",
        {"input": [1], "strict": True},
        503,
        "below the application's threshold 0.9",
    ),
    "a strict question of another dtype": ("sums", {"input": "text", "strict": True}, 400, "float32"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_question_that_is_not_answered_is_told_why(client, case):
    name, body, status, says = REFUSED[case]
    answer = ask(client, name, **body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert says in answer.json()["error"]
    assert ask(client, "unsure", input=[1]).json().items() >= {"default": True, "reason": "low_confidence"}.items()


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


def test_an_answer_may_be_fetched_later_at_any_gateway(deployment, client, other):
    with ThreadPoolExecutor() as pool:
        with deployment.holding():
            accepted = ask(client, "held", input=[3, 1], headers={"prefer": "respond-async"})
            assert accepted.status_code == 202
            where, query_id = accepted.headers["location"], accepted.json()["query_id"]
            for each in (client, other):
                open_query = each.get(where)
                assert (open_query.status_code, open_query.json()) == (202, {"query_id": query_id})
            polls = [pool.submit(each.get, f"{where}&wait_s=50") for each in (client, other)]
        for poll in polls:
            found = poll.result()
            assert (found.status_code, found.json()["prediction"]["output"]) == (200, 4.0)


def test_answers_come_as_events_to_who_listens(deployment, client, other):
    with client.stream("GET", "/v1/answers", headers=EVENTS) as answers, ThreadPoolExecutor() as pool:
        assert answers.headers["content-type"].startswith("text/event-stream")
        with deployment.holding():
            accepted = ask(client, "held", input=[3, 2], headers={"prefer": "respond-async"})
            where, query_id = accepted.headers["location"], accepted.json()["query_id"]
            one = [pool.submit(each.get, f"{where}&wait_s=50", headers=EVENTS) for each in (client, other)]
        told = [next(events(answers.iter_lines())), *(next(events(each.result().iter_lines())) for each in one)]
    assert {(event["event"], event["id"]) for event in told} == {("answer", query_id)}
    predictions = [json.loads(event["data"]) for event in told]
    assert predictions[0]["output"] == 5.0
    assert [each["prediction"] for each in predictions[1:]] == [predictions[0]] * 2


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
        answers = [each.result() for each in repeats]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1


def test_a_trace_and_the_id_of_a_request_stand_in_its_records(deployment, client):
    named = {"traceparent": TRACE, "x-request-id": "request-7"}
    answer = ask(client, input=[5, 1], headers=named)
    assert answer.headers["x-request-id"] == "request-7"
    told = client.post("/v1/feedback", json={"query_id": answer.json()["query_id"], "label": 6}, headers=named)
    assert told.status_code == 202
    catalogue = deployment.catalogue
    with AnyClient(deployment.environ["KAFKA_BOOTSTRAP_SERVERS"]) as reader:
        for topic in (catalogue.queries, catalogue.predictions, catalogue.feedback):
            (record,) = (each for each in reader.read(topic) if is_of(each, answer.json()["query_id"]))
            assert record.headers["traceparent"] == TRACE.encode(), topic
            assert record.headers["correlation-id"] == b"request-7", topic


def is_of(record: Record, query_id: str) -> bool:
    return record.value is not None and record.content.get("query_id") == query_id


def test_the_two_paths_of_clipper_answer_and_learn(client):
    answer = client.post("/sums/predict", json={"uid": 7, "input": [6, 1]}).json()
    assert answer.items() >= {"output": 7.0, "default": False}.items()
    updated = client.post("/sums/update", json={"uid": 7, "input": [6, 1], "label": 7.0})
    assert updated.status_code == 200
    status = client.get(f"/v1/queries/{updated.json()['query_id']}", params={"application": "sums", "context": "7"})
    assert [one["label"] for one in status.json()["feedback"]] == [7.0]
    batch = client.post("/sums/predict", json={"input_batch": [[6, 2], [6, 3]]}).json()
    assert [one["output"] for one in batch["batch_predictions"]] == [8.0, 9.0]
    unsure = client.post("/unsure/predict", json={"input": [6]}).json()
    assert unsure.items() >= {"output": -1, "default": True}.items()
    assert "threshold" in unsure["default_explanation"]


def test_a_gateway_that_is_told_to_end_answers_what_is_open(deployment):
    with deployment.gateway("third") as gateway, client_of(gateway.http) as client, ThreadPoolExecutor() as pool:
        with grpc.insecure_channel(gateway.grpc) as channel:
            health = HealthStub(channel).Watch(HealthCheckRequest(), timeout=100)
            assert next(health).status == HealthCheckResponse.SERVING
            with deployment.holding():
                answer = pool.submit(ask, client, "held", input=[7, 1])
                until("it is asked", lambda: metric(gateway.metrics, "clipper_gateway_in_flight"))
                gateway.program.signal(signal.SIGTERM)
                unready = until("it is not ready", lambda: unready_reasons(gateway))
                assert [each.status for each in health] == [HealthCheckResponse.NOT_SERVING]
                beside = httpx.get(gateway.metrics.replace("/metrics", "/readyz"), trust_env=False)
                assert (beside.status_code, beside.json()["reasons"]) == (503, unready)
                assert gateway.program.code is None
            assert (answer.result().status_code, answer.result().json()["output"]) == (200, 8.0)
        assert unready == ["the gateway ends"]
        assert gateway.program.ended() == exits.OK
        assert "Traceback" not in gateway.program.log


def unready_reasons(gateway: Gateway) -> list[str]:
    found = httpx.get(f"{gateway.http}/readyz", trust_env=False)
    assert found.status_code == (503 if found.json()["reasons"] else 200)
    reasons: list[str] = found.json()["reasons"]
    return reasons


def test_a_port_that_is_taken_ends_a_gateway_and_no_deployment(kafka, catalogue, deployment, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        alone = run("gateway", folder=tmp_path, environ={**deployment.environ, "CLIPPER_GATEWAY_PORT": port})
        errors = [line for line in alone.err if line.startswith("error: ")]
        assert (alone.code, alone.out, len(errors)) == (exits.SETUP, "", 1), alone.err
        assert f"cannot listen at 127.0.0.1:{port}: Address already in use; set gateway.port" in errors[0]
        settings = {"CLIPPER_GATEWAY_ENABLED": "true", "CLIPPER_GATEWAY_PORT": port, "CLIPPER_LOG_FORMAT": "json"}
        (tmp_path / "empty.toml").touch()
        environ = environment_of(kafka, catalogue, **FREE_PORTS | settings)
        with Program("up", "--config", "empty.toml", folder=tmp_path, environ=environ) as up:
            assert up.ready() == {"bootstrap": kafka.bootstrap}
            lines = [json.loads(line) for line in up.log.splitlines()]
            (said,) = [line for line in lines if "goes on without it" in line["msg"]]
            assert (said["level"], f"cannot listen at 127.0.0.1:{port}" in said["reason"]) == ("error", True)
            assert {"router-0", "steward", "gateway", None} == {line.get("child") for line in lines}
            assert all(TIME.fullmatch(line["at"]) for line in lines)


def test_metrics_count_requests_by_route_application_and_status(second, other):
    route = PREDICT.format(name="{name}")
    series = [
        f'clipper_gateway_requests_total{{application="{name}",route="{route}",status="{status}"}}'
        for name, status in (("sums", 200), ("sums", 400), ("", 404))
    ]
    before = {one: metric(second.metrics, one) for one in series}
    assert ask(other, input=[8, 1]).status_code == 200
    assert ask(other, input=[8, 1], colour="red").status_code == 400
    assert ask(other, "a-name-of-the-callers", input=[8, 1]).status_code == 404
    assert {one: metric(second.metrics, one) for one in series} == {one: count + 1 for one, count in before.items()}
    assert metric(second.metrics, f'clipper_gateway_request_seconds_count{{route="{route}"}}') >= 3
    assert metric(second.metrics, "clipper_broker_reachable") == 1
    assert metric(second.metrics, "clipper_gateway_in_flight") == 0


def test_a_gateway_serves_before_there_is_a_broker(tmp_path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        environ = environment(**FREE_PORTS, KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{nobody.getsockname()[1]}")
        with Program("gateway", folder=tmp_path, environ=environ) as program:
            with client_of(program.ready()["http"]) as client:
                assert client.get("/livez").status_code == client.get("/v2/health/live").status_code == 200
                ready, answer = client.get("/readyz"), ask(client, input=[1])
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            assert {"the topics are not connected", "the applications are not read yet"} <= {*ready.json()["reasons"]}
            assert (answer.status_code, "try again" in answer.json()["error"]) == (503, True)
            assert answer.headers["retry-after"] == "1"
            program.signal(signal.SIGTERM)
            assert program.ended() == exits.OK


def test_pages_of_a_configured_origin_may_ask_and_no_others(other):
    wanted = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,idempotency-key"}
    path = PREDICT.format(name="sums")
    preflight = other.options(path, headers={"origin": CONSOLE, **wanted})
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, CONSOLE)
    answer = ask(other, input=[9, 1], headers={"origin": CONSOLE})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, CONSOLE)
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    stranger = {"origin": "https://elsewhere.example"}
    refused = [other.options(path, headers={**stranger, **wanted}), ask(other, input=[9, 2], headers=stranger)]
    assert [each.status_code for each in refused] == [400, 403]
    assert not any("access-control-allow-origin" in each.headers for each in refused)
