"""Requests are drawn from the document, most of them valid, some made invalid on purpose."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from e2e.gateways import ANSWER_S, Deployment, Gateway
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.specs.openapi import checks

pytestmark = pytest.mark.timeout(600)

NAME = "sums"
FIXED: dict[str, dict[str, Any]] = {
    "path_parameters": {"name": NAME, "version": "1"},
    "query": {"application": NAME, "wait_s": 0.1},
}
"""Of every request, where its path has them: an application that is there, and a wait that is short."""
CHECKS = [
    getattr(checks, f"{what}_conformance")
    for what in ("status_code", "content_type", "response_headers", "response_schema")
]
UNAVAILABLE = {503, 504}
SEED = 20261128
PHASES = Phase.generate, Phase.shrink
THOROUGH = settings(deadline=None, database=None, phases=PHASES, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def gateway(deployment: Deployment) -> Iterator[Gateway]:
    with deployment.gateway("documented", CLIPPER_GATEWAY_TIMEOUT_S="10") as gateway:
        yield gateway


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False  # no proxy of the machine
        yield session


def explain_refusal(case: Case, problem: dict[str, Any]) -> str | None:
    """Why a valid request may be refused by 400 all the same; None when the document should have said more."""
    reasons = {
        "a strict query that the models could not be asked": "reason" in problem,
        "a tensor whose shape, datatype and values do not agree": "/infer" in case.path,
        "an integer of more than 64 bits": "more than 64 bits" in problem["error"],
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def ask(operation: APIOperation, session: requests.Session, mode: GenerationMode, count: int) -> set[int]:
    statuses = set[int]()
    json_only = {"media_type": "application/json"} if operation.body else {}
    fixed = {
        where: {name: values[name] for name in values.keys() & {one.name for one in getattr(operation, where)}}
        for where, values in FIXED.items()
    }

    @seed(SEED)
    @settings(THOROUGH, max_examples=count)
    @given(case=operation.as_strategy(mode, **fixed, **json_only))
    def is_answered_as_documented(case: Case) -> None:
        case.headers.pop("Inference-Header-Content-Length", None)  # of binary bodies
        if isinstance(case.body, dict) and "query_id" in case.body:
            case.headers.pop("Idempotency-Key", None)  # two ids in one request are refused
        response = case.call(session=session, timeout=ANSWER_S)
        case.validate_response(response, checks=CHECKS)
        statuses.add(response.status_code)
        assert response.status_code < 500 or response.status_code in UNAVAILABLE, response.text
        if mode is GenerationMode.POSITIVE and response.status_code == 400:
            assert explain_refusal(case, response.json()), response.text

    is_answered_as_documented()
    return statuses


@pytest.mark.parametrize(("valid", "invalid"), [(5, 3), pytest.param(25, 12, marks=pytest.mark.slow)])
def test_every_answer_is_one_that_the_document_has(gateway, session, valid, invalid):
    schema = schemathesis.openapi.from_dict(session.get(f"{gateway.http}/openapi.json", timeout=ANSWER_S).json())
    schema.config.update(base_url=gateway.http)
    answered = dict[str, set[int]]()
    for operation in (one.ok() for one in schema.get_all_operations()):
        is_varied = bool(operation.body or operation.query)
        answered[operation.path] = ask(operation, session, GenerationMode.POSITIVE, valid if is_varied else 4)
        if is_varied:
            assert 400 in ask(operation, session, GenerationMode.NEGATIVE, invalid)
    assert 200 in answered["/v1/applications/{name}/predict"]
    assert 202 in answered["/v1/feedback"]
    ready = session.get(f"{gateway.http}/readyz", timeout=ANSWER_S)
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "reasons": []})


def test_examples_of_the_document_are_answered(gateway, session):
    document = session.get(f"{gateway.http}/openapi.json", timeout=ANSWER_S).json()
    schemas = document["components"]["schemas"].items()
    examples = {name: schema["examples"][0] for name, schema in schemas if "examples" in schema}

    for path, name, status in (
        (f"/v1/applications/{NAME}/predict", "PredictBody", 200),
        (f"/v2/models/{NAME}/infer", "InferenceRequest", 200),
        ("/v1/applications/nobody/predict", "PredictBody", 404),
    ):
        found = session.post(f"{gateway.http}{path}", json=examples[name], timeout=ANSWER_S)
        assert found.status_code == status, (path, found.text)
        if "output" in found.json():
            assert found.json()["output"] == sum(examples[name]["input"]), path
