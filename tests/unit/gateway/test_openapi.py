import json
import re
from pathlib import Path

import jsonschema
import msgspec
import pytest
import schemathesis
from bad_input import INVALID_FEEDBACK, INVALID_QUERIES
from hypothesis import given, settings
from sources import page_script
from unit.gateway.rig import browser_of, settings_of

import clipper_gateway
from clipper_agents.observability.metrics import ProcessMetrics
from clipper_gateway import api
from clipper_gateway.calls import PredictBody
from clipper_gateway.server import Gateway
from clipper_topics.feedback import check_feedback
from clipper_topics.json_schema import components
from clipper_topics.query import Query, check_query

OPENAPI = page_script("openapi_document")
DOCUMENT, EXAMPLES, REFUSALS = OPENAPI.document(), OPENAPI.EXAMPLES, OPENAPI.REFUSALS
SCHEMAS = DOCUMENT["components"]["schemas"]
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)


def bodies(path):
    """What the document says may be sent to a path, as bytes of JSON."""
    return SCHEMA[path]["post"].as_strategy().map(lambda case: json.dumps(case.body).encode())


def is_valid(name, body):
    definition = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return jsonschema.Draft202012Validator(definition).is_valid(body)


@pytest.fixture
def gateway(tmp_path):
    return Gateway(settings_of(tmp_path), ProcessMetrics("gateway"))


def test_the_document_is_openapi_3_1_and_its_schemas_are_json_schemas():
    SCHEMA.validate()
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert len([operation.ok() for operation in SCHEMA.get_all_operations()]) == len(OPENAPI.SERVED) - 1, (
        "`/v2/` is `/v2`"
    )


def test_every_reference_resolves_and_every_component_is_used():
    found = set(re.findall(r'"\$ref": "#/components/([^"]+)"', json.dumps(DOCUMENT)))
    there = {f"{kind}/{name}" for kind, parts in DOCUMENT["components"].items() for name in parts}
    assert found == {name for name in there if not name.startswith("securitySchemes/")}


def test_the_document_has_every_status_of_a_refusal():
    folder = Path(clipper_gateway.__file__).parent
    sources = [path.read_text() for path in folder.glob("*.py") if path.stem != "oip_grpc"]
    raised = {int(status) for source in sources for status in re.findall(r"Refusal\(\s*(\d{3}),", source)}
    assert raised - {405} == set(REFUSALS)


def test_fields_of_a_query_have_the_same_bounds_in_a_body():
    record = components([Query], "{name}")["Query"]["properties"]
    body = SCHEMAS["PredictBody"]["properties"]
    for field in set(body) - {"strict"}:
        assert body[field] | {"description": ""} == record[field] | {"description": ""}, field
    for field in ("context", "deadline_ms", "query_id"):
        assert SCHEMAS["QueryParameters"]["properties"][field]["anyOf"] == record[field]["anyOf"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_fits_its_schema(name):
    assert is_valid(name, EXAMPLES[name])
    assert SCHEMAS[name]["examples"] == [EXAMPLES[name]]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        *(("PredictBody", body) for body, _ in INVALID_QUERIES),
        ("PredictBody", {"input": 1, "dead_line_ms": 5}),
        *(("FeedbackBody", {"query_id": "a", **body}) for body, _ in INVALID_FEEDBACK),
        ("FeedbackBody", []),
        ("FeedbackBody", {"query_id": "a", "label": 3, "contxt": "ada"}),
        ("InferenceRequest", {"inputs": []}),
    ],
    ids=range(len(INVALID_QUERIES) + len(INVALID_FEEDBACK) + 4),
)
def test_what_the_gateway_refuses_does_not_fit_the_schema(name, body):
    assert not is_valid(name, body)


def check_predict(body):
    asked = msgspec.structs.asdict(api.decoded(msgspec.json.Decoder(PredictBody), body))
    del asked["strict"]
    return check_query(Query(**asked | {"application": "digits"}))


def check_given(body):
    found = api.decoded(msgspec.json.Decoder(list[api.FeedbackBody] | api.FeedbackBody), body)
    return [problem for each in (found if isinstance(found, list) else [found]) if (problem := check_feedback(each))]


@pytest.mark.parametrize(
    ("path", "check"), [("/v1/applications/{name}/predict", check_predict), ("/v1/feedback", check_given)]
)
def test_a_body_that_fits_can_be_read_and_asked(path, check):
    @given(body=bodies(path))
    @settings(derandomize=True)
    def fits(body):
        assert not check(body)

    fits()


async def test_what_the_gateway_answers_without_kafka_is_documented(gateway):
    async with browser_of(gateway.app) as client:
        for path, item in DOCUMENT["paths"].items():
            ((method, operation),) = item.items()
            content = {"json": {}} if method == "post" else {"params": {"application": "digits"}}
            found = await client.request(method, re.sub(r"{\w+}", "1", path), **content)
            response = operation["responses"][str(found.status_code)]
            if reference := response.get("$ref"):
                response = DOCUMENT["components"]["responses"][reference.rpartition("/")[2]]
            documented = response["content"][found.headers["content-type"]]["schema"]["$ref"].rpartition("/")[2]
            assert is_valid(documented, found.json()), path
            assert "x-request-id" in found.headers


async def test_the_document_is_served_as_it_is_packaged(gateway):
    async with browser_of(gateway.app) as client:
        found = await client.get("/openapi.json")
    assert (found.headers["content-type"], found.json()) == ("application/json", DOCUMENT)
    assert found.headers["cache-control"] == "no-cache"
