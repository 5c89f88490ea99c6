"""Decoding of records that forbid unknown fields, by readers that must not mind them."""

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


class Parser(Protocol):
    """Bytes to plain Python values."""

    def decode(self, value: bytes, /) -> Any:
        """The value."""
        ...


def known_fields(content: Any, record: type[msgspec.Struct]) -> Any:
    """The content without the fields that the record, or a record in one of its fields, does not have.

    >>> from clipper_topics.manifests import ApplicationManifest
    >>> known_fields({"name": "digits", "colour": 1, "input": {"dtype": "text", "x": 2}}, ApplicationManifest)
    {'name': 'digits', 'input': {'dtype': 'text'}}
    """
    if not isinstance(content, Mapping):
        return content
    types = {field.encode_name: field.type for field in msgspec.structs.fields(record)}
    return {name: _known(value, types[name]) for name, value in content.items() if name in types}


def _known(value: Any, declared: Any) -> Any:
    is_record = isinstance(declared, type) and issubclass(declared, msgspec.Struct)
    return known_fields(value, declared) if is_record else value


class TolerantDecoder(Generic[T]):
    """A decoder that ignores unknown fields of a record whose type forbids them.

    Slower than msgspec's own: for manifests, of which there are few.
    """

    def __init__(self, record: type[T], parser: Parser) -> None:
        self._record = record
        self._parser = parser

    def decode(self, value: bytes) -> T:
        """The record.

        Raises:
            msgspec.MsgspecError: the bytes, or a field that the record knows, are not as they should be.
        """
        return msgspec.convert(known_fields(self._parser.decode(value), self._record), self._record)
