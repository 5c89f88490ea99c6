"""What the published schemas permit is decoded, and what they refuse is refused with a reason."""

import json
from typing import Any

import jsonschema
import msgspec
import pytest
from builders.json_schemas import fitting, values
from builders.kafka import record
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st

from clipper_agents.control.state import ControlState
from clipper_agents.feedback.feedback_step import decode_feedback
from clipper_agents.router.queries import decode_queries
from clipper_topics import generate
from clipper_topics.codec import JSON, MSGPACK, UndecodableRecord, headers_of

NAMES = ["query", "feedback", "application", "model"]
SCHEMAS: dict[str, Any] = {name: json.loads(generate.documents()[f"{name}.schema.json"]) for name in NAMES}
VALID = {name: jsonschema.Draft202012Validator(schema).is_valid for name, schema in SCHEMAS.items()}
DOCUMENTS = {name: fitting(schema) for name, schema in SCHEMAS.items()}
BETWEEN_FIELDS = ("elements: a row has at most", "name each version once", "let their shares sum", "NaN", "64 bits")
"""Reasons of rules that no schema can state: between fields, and of values of any form."""
FITTING = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def written(document: Any, kind: str) -> bytes:
    """The bytes of a document; not of one with an integer that msgpack cannot hold."""
    try:
        return json.dumps(document).encode() if kind == JSON else msgspec.msgpack.encode(document)
    except OverflowError:
        reject()


def refusal(name: str, document: Any, kind: str) -> str | None:
    """Why the record is refused by whoever reads its topic; None when it counts."""
    value, headers = written(document, kind), tuple(headers_of(kind))
    if name == "query":
        decoded = decode_queries([record(3, value, headers=headers)], 0)
        return decoded.queries[0].invalid if decoded.queries else str(decoded.undecodable[0][1])
    if name == "feedback":
        try:
            decode_feedback(record(3, value, headers=headers))
        except UndecodableRecord as error:
            return str(error)
        return None
    ref = document["name"] if name == "application" else f"{document['name']}:{document.get('version', '1')}"
    refused = ControlState().apply(f"{name}/{ref}".encode(), value, headers)
    return getattr(refused, "reason", None)


def in_float_form(document: Any) -> Any:
    """The document as a program without integers writes it, 3 as 3.0."""
    if isinstance(document, dict):
        return {name: in_float_form(value) for name, value in document.items()}
    if isinstance(document, list):
        return [in_float_form(value) for value in document]
    whole = isinstance(document, int) and not isinstance(document, bool) and abs(document) <= 2**53
    return float(document) if whole else document


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
@pytest.mark.parametrize("name", NAMES)
@FITTING
@given(data=st.data(), floats=st.booleans())
def test_what_the_schema_permits_is_accepted(name: str, kind: str, data: st.DataObject, floats: bool) -> None:
    document = data.draw(DOCUMENTS[name])
    document = in_float_form(document) if floats else document
    assert VALID[name](document)
    wrong = refusal(name, document, kind)
    assert wrong is None or any(rule in wrong for rule in BETWEEN_FIELDS)


anything = st.one_of(values, st.sampled_from(["", "2@41", "x" * 257, [], {}, 0, -1, 0.5, 2**53 + 1]))


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
@pytest.mark.parametrize("name", NAMES)
@FITTING
@given(data=st.data(), value=anything)
def test_what_the_schema_refuses_is_refused_with_a_reason(
    name: str, kind: str, data: st.DataObject, value: Any
) -> None:
    changed = data.draw(st.sampled_from(sorted(SCHEMAS[name]["properties"])).filter(lambda field: field != "name"))
    document = data.draw(DOCUMENTS[name]) | {changed: value}
    if data.draw(st.booleans()):
        del document[changed]
    known = json.loads(json.dumps(document))
    assume(not VALID[name](known) and not _only_unknown_fields(name, known))
    assert refusal(name, document, kind)


def _only_unknown_fields(name: str, document: Any) -> bool:
    """Whether the document has nothing wrong but fields that no record has, which readers ignore."""
    errors = jsonschema.Draft202012Validator(SCHEMAS[name]).iter_errors(document)
    return all(_unknown(error) for error in errors)


def _unknown(error: jsonschema.ValidationError) -> bool:
    inner = [one for one in error.context or () if one.validator != "type"]
    return error.validator == "additionalProperties" or bool(inner and all(map(_unknown, inner)))


def test_the_search_tells_documents_apart() -> None:
    fits = {"application": "digits", "input": [1], "deadline_ms": 5.0}
    assert (refusal("query", fits, JSON), VALID["query"](fits)) == (None, True)
    assert "give at least 1" in (refusal("query", fits | {"deadline_ms": 0}, MSGPACK) or "")
