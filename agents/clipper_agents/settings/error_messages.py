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


def explained(message: str, content: Mapping[str, Any], record: type[msgspec.Struct]) -> str:
    """A msgspec message turned round: `router.processes = 'two': expected int, got str`."""
    what, _, place = message.partition(" - at ")
    key = place.strip("`").removeprefix("$").lstrip(".")
    steps = re.findall(r"[^.\[\]]+", key)
    found = _type_at(record, steps)
    if unknown := re.search(r"unknown field `(.*)`", what):
        return f"{'.'.join([*filter(None, [key]), unknown[1]])}: there is no such key{_hint(unknown[1], found)}"
    value: Any = content
    for step in steps:
        value = value[int(step) if isinstance(value, list) else step]
    for pattern, words in _PATTERNS.items():
        what = what.replace(f"matching regex {pattern!r}", f"of {words}")
    choices = f"; use one of {', '.join(map(str, found.values))}" if isinstance(found, LiteralType) else ""
    return f"{key} = {value!r}: {what[0].lower()}{what[1:].replace('`', '')}{choices}"


def _hint(key: str, table: Type | None) -> str:
    if "password" in key:
        return "; the password comes from the variable KAFKA_SASL_PASSWORD only"
    known = [field.encode_name for field in table.fields] if isinstance(table, StructType) else ()
    return f"; known: {', '.join(known)}" if known else ""


def _type_at(record: type[msgspec.Struct], steps: list[str]) -> Type | None:
    """The type that belongs there, None where the path leaves the records."""
    found: Type | None = msgspec.inspect.type_info(record)
    for step in steps:
        if isinstance(found, StructType):
            found = next((field.type for field in found.fields if field.encode_name == step), None)
        else:
            found = found.item_type if isinstance(found, ListType) else None
    return found
