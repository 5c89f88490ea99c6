"""What the published schemas permit is decoded, and what they refuse is refused with a reason, by every codec."""

import json

import generate_schemas
import jsonschema
import msgspec
import pytest
import schemathesis
from builders.kafka import record
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from clipper_agents.control.state import ControlState
from clipper_agents.feedback.feedback_step import decode_feedback
from clipper_agents.router.queries import decode_queries
from clipper_stream.query.batch import PLAIN
from clipper_topics.codec import JSON, MSGPACK, UndecodableRecord, headers_of

NAMES = ["query", "feedback", "application", "model"]
SCHEMAS = {name: json.loads(generate_schemas.documents()[f"{name}.schema.json"]) for name in NAMES}
VALIDATORS = {name: jsonschema.Draft202012Validator(schema) for name, schema in SCHEMAS.items()}
BETWEEN_FIELDS = (
    *("elements: a row has at most", "name each version once", "let their shares sum", "NaN", "64 bits"),
    *("a table needs some, nothing else has any", "give each name once", "only floats and tables have them"),
    *("is about absolute and squared losses", "label_margin"),
    *("guardrail '", "rollout.plan has no end", "shadow_share is drawn for each query"),
)
"""Reasons of rules that no schema can state: between fields, and of values of any form."""
SEARCH = settings(max_examples=40, suppress_health_check=list(HealthCheck))


def fitting(schema):
    """Documents that the schema permits, as schemathesis makes bodies of requests."""
    body = json.loads(json.dumps(schema).replace("#/$defs/", "#/components/schemas/"))
    parts = {"schemas": body.pop("$defs", {})}
    operation = {"requestBody": {"required": True, "content": {JSON: {"schema": body}}}, "responses": {}}
    head = {"openapi": "3.1.0", "info": {"title": "", "version": ""}, "components": parts}
    found = schemathesis.openapi.from_dict(head | {"paths": {"/": {"post": operation}}})
    return found["/"]["post"].as_strategy().map(lambda case: case.body)


DOCUMENTS = {name: fitting(schema) for name, schema in SCHEMAS.items()}


def refusals(name, document):
    """Why the record is refused by whoever reads its topic, of each encoding that can hold it; None when it counts."""
    yield refusal(name, document, json.dumps(document).encode(), tuple(headers_of(JSON)))
    try:
        value = msgspec.msgpack.encode(document)
    except OverflowError:  # an integer of more than 64 bits
        return
    yield refusal(name, document, value, tuple(headers_of(MSGPACK)))


def refusal(name, document, value, headers):
    if name == "query":
        batches, undecodable = decode_queries([record(3, value, headers=headers)], 0)
        return batches[0].options.get(0, PLAIN).invalid if batches else str(undecodable[0][1])
    if name == "feedback":
        try:
            decode_feedback(record(3, value, headers=headers))
        except UndecodableRecord as error:
            return str(error)
        return None
    ref = document["name"] if name == "application" else f"{document['name']}:{document.get('version', '1')}"
    return getattr(ControlState().apply(f"{name}/{ref}".encode(), value, headers), "reason", None)


def in_float_form(document):
    """The document as a program without integers writes it, 3 as 3.0."""
    if isinstance(document, dict):
        return {name: in_float_form(value) for name, value in document.items()}
    if isinstance(document, list):
        return [in_float_form(value) for value in document]
    whole = isinstance(document, int) and not isinstance(document, bool) and abs(document) <= 2**53
    return float(document) if whole else document


@pytest.mark.parametrize("name", NAMES)
@SEARCH
@given(data=st.data(), floats=st.booleans())
def test_what_the_schema_permits_is_accepted(name, data, floats):
    document = data.draw(DOCUMENTS[name])
    document = in_float_form(document) if floats else document
    assert VALIDATORS[name].is_valid(document)
    for wrong in refusals(name, document):
        assert wrong is None or any(rule in wrong for rule in BETWEEN_FIELDS)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
anything = st.one_of(
    st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner)),
    st.sampled_from(["", "2@41", "x" * 257, [], {}, 0, -1, 0.5, 2**53 + 1]),
)


@pytest.mark.parametrize("name", NAMES)
@SEARCH
@given(data=st.data(), value=anything)
def test_what_the_schema_refuses_is_refused_with_a_reason(name, data, value):
    changed = data.draw(st.sampled_from(sorted({*SCHEMAS[name]["properties"]} - {"name"})))
    document = data.draw(DOCUMENTS[name]) | {changed: value}
    if data.draw(st.booleans()):
        del document[changed]
    errors = list(VALIDATORS[name].iter_errors(document))
    assume(errors and not all(map(_of_an_unknown_field, errors)))
    assert all(refusals(name, document))


def _of_an_unknown_field(error):
    """Readers ignore fields that no record has."""
    inner = [one for one in error.context or () if one.validator != "type"]
    return error.validator == "additionalProperties" or bool(inner and all(map(_of_an_unknown_field, inner)))
