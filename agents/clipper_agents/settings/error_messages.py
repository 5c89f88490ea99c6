"""Messages about a wrong key or value, with the key first and the value that was found there."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.inspect import ListType, LiteralType, StructType, Type

from clipper_topics.manifests import NAME_PATTERN, REF_PATTERN, VERSION_PATTERN

_PATTERNS = {
    NAME_PATTERN: "lower case letters, digits and dashes, at most 64",
    VERSION_PATTERN: "letters, digits and dashes, at most 32",
    REF_PATTERN: "the form name:version",
}


def keys_of(record: type[msgspec.Struct]) -> list[str]:
    """The record's keys as they are written in a file."""
    return [field.encode_name for field in msgspec.structs.fields(record)]


def explained(message: str, content: Mapping[str, Any], record: type[msgspec.Struct]) -> str:
    """A msgspec message turned round: `router.processes = 'two': expected int, got str`.

    Args:
        message: As msgspec gave it, ending in ``at `$.router.processes` ``.
        content: What was converted.
        record: What it was converted to.
    """
    what, _, place = message.partition(" - at ")
    key = place.strip("`").removeprefix("$").lstrip(".")
    if unknown := re.search(r"unknown field `(.*)`", what):
        return f"{key + '.' if key else ''}{unknown[1]}: there is no such key{_hint(key, unknown[1], record)}"
    allowed = _choices(_type_at(record, key))
    return f"{key} = {_value_at(content, key)!r}: {_in_words(what)}{allowed}"


def _in_words(what: str) -> str:
    for pattern, words in _PATTERNS.items():
        what = what.replace(f"matching regex {pattern!r}", f"of {words}")
    return f"{what[0].lower()}{what[1:]}".replace("`", "")


def _hint(table: str, key: str, record: type[msgspec.Struct]) -> str:
    if "password" in key:
        return "; the password comes from the variable KAFKA_SASL_PASSWORD only"
    found = _type_at(record, table)
    return f"; known: {', '.join(keys_of(found.cls))}" if isinstance(found, StructType) else ""


def _choices(found: Type | None) -> str:
    return f"; use one of {', '.join(map(str, found.values))}" if isinstance(found, LiteralType) else ""


def _type_at(record: type[msgspec.Struct], key: str) -> Type | None:
    """The type that belongs at the key, None where the path leaves the records."""
    found: Type | None = msgspec.inspect.type_info(record)
    for step in _steps(key):
        if isinstance(found, StructType):
            found = next((field.type for field in found.fields if field.encode_name == step), None)
        else:
            found = found.item_type if isinstance(found, ListType) else None
    return found


def _steps(key: str) -> list[str]:
    return re.findall(r"[^.\[\]]+", key)


def _value_at(content: Any, key: str) -> Any:
    for step in _steps(key):
        if isinstance(content, list) and step.isdigit():
            content = content[int(step)]
        elif isinstance(content, Mapping) and step in content:
            content = content[step]
    return content
