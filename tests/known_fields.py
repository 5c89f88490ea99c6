"""What a record of an application says, where another field of it, which nobody reads, is no proper JSON or msgpack.

The wire contract ignores fields that a record does not know, whatever is in them. The plain readers of the tests read
everything or nothing, so for such a record the one of msgspec is asked for the known fields alone.
"""

from functools import partial
from typing import Any

import msgspec

from clipper_topics.codec import no_extension

DECODERS = {
    "application/json": msgspec.json.decode,
    "application/msgpack": partial(msgspec.msgpack.decode, ext_hook=no_extension),
}


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
    metrics: Any = msgspec.UNSET


def known_fields(record: Any, fields: type[msgspec.Struct]) -> Any:
    """The content of an `e2e.any_client.Record`, at least those fields of it.

    Raises:
        ValueError: it is no record at all.
    """
    try:
        return record.content
    except ValueError:
        if record.kind not in DECODERS:
            raise
    try:
        found = DECODERS[record.kind](record.value or b"", type=fields)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return {name: value for name, value in msgspec.structs.asdict(found).items() if value is not msgspec.UNSET}
