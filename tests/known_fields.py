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


class Identity(msgspec.Struct):
    """What queries and predictions have in common."""

    query_id: Any = msgspec.UNSET
    application: Any = msgspec.UNSET


class Told(Identity):
    """What a feedback may say."""

    context: Any = msgspec.UNSET
    label: Any = msgspec.UNSET
    loss: Any = msgspec.UNSET
    reward: Any = msgspec.UNSET


def _no_extension(code: int, _: memoryview) -> Any:
    raise ValueError(f"extension type {code}")


def known_fields(record: Readable, fields: type[msgspec.Struct]) -> Any:
    """The content, at least those fields of it.

    Raises:
        ValueError: it is no record at all.
    """
    try:
        return record.content
    except ValueError:
        if record.kind not in ("application/json", "application/msgpack"):
            raise
    value, as_json = record.value or b"", record.kind == "application/json"
    try:
        found = (
            msgspec.json.decode(value, type=fields)
            if as_json
            else msgspec.msgpack.decode(value, type=fields, ext_hook=_no_extension)
        )
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return {name: value for name, value in msgspec.structs.asdict(found).items() if value is not msgspec.UNSET}
