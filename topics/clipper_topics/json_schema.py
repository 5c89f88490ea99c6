"""JSON Schema of the records, with the sentence below each field as its description.

Source: JSON Schema 2020-12.
"""

import ast
import inspect
import textwrap
from typing import Any

import msgspec

from clipper_topics.codec import records_in
from clipper_topics.feedback import TRUTHS, Feedback
from clipper_topics.prediction import Prediction
from clipper_topics.query import Query

DIALECT = "https://json-schema.org/draft/2020-12/schema"

EXACTLY_ONE: dict[str, tuple[str, ...]] = {
    Query.__name__: ("input", "inputs"),
    Prediction.__name__: ("output", "outputs"),
    Feedback.__name__: TRUTHS,
}
"""Fields of which a record has exactly one, which no type says; beside it, null counts as absent."""


def field_sentences(record: type[msgspec.Struct]) -> dict[str, str]:
    """The string below each field in the record's source, by field.

    >>> field_sentences(Query)["application"]
    'Name of a registered application.'
    """
    parsed = ast.parse(textwrap.dedent(inspect.getsource(record))).body[0]
    assert isinstance(parsed, ast.ClassDef)
    found = {}
    for field, below in zip(parsed.body, parsed.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(sentence))):
                found[name] = inspect.cleandoc(sentence)
    return found


def components(records: list[type[msgspec.Struct]], ref_template: str) -> dict[str, Any]:
    """Schemas of the records and of those inside them, by name; they point for another to `ref_template`."""
    _, schemas = msgspec.json.schema_components(records, ref_template=ref_template)
    for record in records_in(records):
        _describe(schemas[record.__name__], record)
    return schemas


def schema(record: type[msgspec.Struct], examples: list[Any]) -> dict[str, Any]:
    """The schema of one record, complete in itself."""
    parts = components([record], "#/$defs/{name}")
    own = parts.pop(record.__name__)
    return {"$schema": DIALECT, **own, "examples": examples, **({"$defs": parts} if parts else {})}


def _describe(described: dict[str, Any], record: type[msgspec.Struct]) -> None:
    described["description"] = inspect.cleandoc(record.__doc__ or "")
    for name, sentence in field_sentences(record).items():
        described["properties"][name]["description"] = sentence
    if alternatives := EXACTLY_ONE.get(record.__name__):
        described["oneOf"] = [_only(name, alternatives, described["properties"]) for name in alternatives]


def _only(name: str, alternatives: tuple[str, ...], properties: dict[str, Any]) -> dict[str, Any]:
    """One field is given, and no other. Null is a value only of a field that may be anything."""
    absent: dict[str, Any] = {other: {"type": "null"} for other in alternatives if other != name}
    given = {name: properties[name]["anyOf"][0]} if "anyOf" in properties[name] else {}
    return {"required": [name], "properties": absent | given}
