"""Messages about a wrong key or value, with the key first and the value that was found there."""

import re
from functools import cache
from typing import Any

import msgspec
from msgspec.inspect import ListType, LiteralType, StructType, Type

from clipper_stream.errors import shown
from clipper_stream.names import choices
from clipper_topics.manifests import NAME_PATTERN, REF_PATTERN, VERSION_PATTERN

_PATTERNS = {
    NAME_PATTERN: "lower case letters, digits and dashes, at most 64",
    VERSION_PATTERN: "letters, digits and dashes, at most 32",
    REF_PATTERN: "the form name:version",
    r"^[0-9a-f]{64}$(?!\n)": "64 hexadecimal digits, as sha256sum prints them",
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": "letters, digits, dots, dashes and underscores, at most 64",
}


_type_info = cache(msgspec.inspect.type_info)


def explained(message: str, content: Any, record: Any) -> str:
    """A msgspec message about records turned round: `router.processes = 'two': expected int, got str`."""
    what, _, place = message.replace(" | null", "").partition(" - at ")
    key = place.strip("`").removeprefix("$").lstrip(".")
    steps = re.findall(r"[^.\[\]]+", key)
    found = _type_at(record, steps)
    if unknown := re.search(r"unknown field `(.*)`", what):
        return f"{'.'.join([*filter(None, [key]), unknown[1]])}: there is no such key{_hint(unknown[1], found)}"
    if missing := re.search(r"missing required field `(.*)`", what):
        return f"{'.'.join([*filter(None, [key]), missing[1]])} is missing: add it"
    if not key:
        return what.replace("`", "")
    value: Any = content
    for step in steps:
        value = value[int(step) if isinstance(value, list) else step]
    for pattern, words in _PATTERNS.items():
        what = what.replace(f"matching regex {pattern!r}", f"of {words}")
    instead = f"; {choices(str(value), map(str, found.values))}" if isinstance(found, LiteralType) else ""
    return f"{key} = {shown(value)}: {what[0].lower()}{what[1:].replace('`', '')}{instead}"


def _hint(key: str, table: Type | None) -> str:
    if "password" in key:
        return "; the password comes from the variable KAFKA_SASL_PASSWORD only"
    known = [field.encode_name for field in table.fields] if isinstance(table, StructType) else ()
    return f": {choices(key, known)}" if known else ""


def _type_at(record: Any, steps: list[str]) -> Type | None:
    found: Type | None = _type_info(record)
    for step in steps:
        if isinstance(found, StructType):
            found = next((field.type for field in found.fields if field.encode_name == step), None)
        else:
            found = found.item_type if isinstance(found, ListType) else None
    return found
