"""Documents that fit a JSON Schema, of those keywords that the published schemas use."""

import re
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

MANY = 10**30
texts = st.text(st.characters(codec="utf-8"), max_size=4)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False), texts
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=2)),
    max_leaves=5,
)
KNOWN = {
    "$defs", "$ref", "$schema", "additionalProperties", "anyOf", "default", "description", "enum", "examples",
    "exclusiveMaximum", "exclusiveMinimum", "items", "maxItems", "maxLength", "maximum", "minItems", "minLength",
    "minimum", "not", "oneOf", "pattern", "properties", "required", "title", "type",
}  # fmt: skip


def fitting(schema: dict[str, Any], root: dict[str, Any] | None = None) -> st.SearchStrategy[Any]:
    """Values that the schema permits."""
    root = schema if root is None else root
    unknown = set(schema) - KNOWN
    assert not unknown, f"the keywords {unknown} are to be understood here too"
    if "$ref" in schema:
        return fitting(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            rest = {name: value for name, value in schema.items() if name != choice}
            return st.one_of([fitting(_merged(rest, one), root) for one in schema[choice]])
    return _of_type(schema, root)


def _merged(schema: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Both schemas in one; of a property both say the same, or `more` says less."""
    both = schema | more
    if "properties" in schema and "properties" in more:
        both["properties"] = schema["properties"] | more["properties"]
        both["required"] = [*schema["required"], *more["required"]]
    return both


def _of_type(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    kinds: dict[str | None, Callable[[], st.SearchStrategy[Any]]] = {
        None: lambda: values,
        "null": st.none,
        "boolean": st.booleans,
        "integer": lambda: st.integers(schema.get("minimum", -MANY), schema.get("maximum", MANY)),
        "number": lambda: _numbers(schema),
        "string": lambda: _strings(schema),
        "array": lambda: _arrays(schema, root),
        "object": lambda: _objects(schema, root),
    }
    return kinds[schema.get("type")]()


def _arrays(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    least, most = schema.get("minItems", 0), min(4, schema.get("maxItems", 4))
    return st.lists(fitting(schema.get("items", {}), root), min_size=least, max_size=most)


def _numbers(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    least, most = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    most = schema.get("exclusiveMaximum") if most is None else most
    return st.floats(
        least, most, allow_nan=False, allow_infinity=False,
        exclude_min="exclusiveMinimum" in schema, exclude_max="exclusiveMaximum" in schema,
    )  # fmt: skip


def _strings(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "pattern" in schema:
        return st.from_regex(schema["pattern"])
    least, most = schema.get("minLength", 0), schema.get("maxLength", 300)
    longest = st.just("\N{GRINNING FACE}" * most)
    found = st.one_of(st.text(st.characters(codec="utf-8"), min_size=least, max_size=least + 3), longest)
    refused = schema.get("not", {}).get("pattern")
    return found if refused is None else found.filter(lambda text: not re.search(refused, text))


def _objects(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    properties = {name: fitting(one, root) for name, one in schema.get("properties", {}).items()}
    required = {name: properties[name] for name in schema.get("required", ())}
    known = st.fixed_dictionaries(required, optional={n: p for n, p in properties.items() if n not in required})
    if schema.get("additionalProperties") is False:
        return known
    others = st.dictionaries(texts.filter(lambda name: name not in properties), values, max_size=2)
    return st.builds(lambda more, own: more | own, others, known)
