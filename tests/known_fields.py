"""What a record of an application says, where another field of it, which nobody reads, is no proper JSON or msgpack.

The wire contract ignores fields that a record does not know, whatever is in them. The plain readers of the tests read
everything or nothing, so for such a record the one of msgspec is asked for the known fields alone.
"""

from typing import Any, Protocol

import msgspec


class Readable(Protocol):
    """A record, as `e2e.any_client.Record`."""

    @property
    def value(self) -> bytes | None: ...
    @property
    def kind(self) -> str: ...
    @property
    def content(self) -> Any: ...


class _Known(msgspec.Struct):
    query_id: Any = msgspec.UNSET
    application: Any = msgspec.UNSET
    context: Any = msgspec.UNSET
    label: Any = msgspec.UNSET
    loss: Any = msgspec.UNSET
    reward: Any = msgspec.UNSET


def _no_extension(code: int, _: memoryview) -> Any:
    raise ValueError(f"extension type {code}")


_DECODERS: dict[str, Any] = {
    "application/json": msgspec.json.Decoder(_Known),
    "application/msgpack": msgspec.msgpack.Decoder(_Known, ext_hook=_no_extension),
}


def known_fields(record: Readable) -> Any:
    """The content, of queries and feedback at least the fields above that it has.

    Raises:
        ValueError: it is no record at all.
    """
    try:
        return record.content
    except ValueError:
        if record.kind not in _DECODERS:
            raise
    try:
        found = _DECODERS[record.kind].decode(record.value or b"")
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return {name: value for name, value in msgspec.structs.asdict(found).items() if value is not msgspec.UNSET}
