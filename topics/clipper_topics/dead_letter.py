"""Headers of a dead letter: where the record stood and what was wrong with it.

The value and the key of a dead letter are the original bytes; the original's headers come first, these after them.

Source: KIP-1034, "Dead letter queue in Kafka Streams": header names and text values. There is no stack trace: to write
one takes longer than to answer eight queries, and it says nothing about the record.
"""

from collections.abc import Iterable
from dataclasses import dataclass

PREFIX = "__streams.errors."
CUT = "clipper-cut"
"""A header of letters of which not everything could be kept: what was cut, and what it had, in words."""
MESSAGE_CHARACTERS = 4_096
"""The beginning of a message: one that repeats what it was given can be larger than a record may be."""


class NotADeadLetter(ValueError):
    """A header that every dead letter has is missing or is no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What the headers of a dead letter say: what was wrong, where the original stood, and what is missing of it."""

    exception: str
    message: str
    topic: str
    partition: int
    offset: int
    cut: str | None = None


def dead_letter_headers(topic: str, partition: int, offset: int, error: BaseException) -> list[tuple[str, bytes]]:
    """The headers to add to the original ones, as UTF-8 text.

    >>> dict(dead_letter_headers("clipper.queries", 3, 41, ValueError("no")))["__streams.errors.offset"]
    b'41'
    """
    kind = type(error)
    found = {
        "exception": f"{kind.__module__}.{kind.__qualname__}",
        "message": str(error)[:MESSAGE_CHARACTERS],
        "topic": topic,
        "partition": str(partition),
        "offset": str(offset),
    }
    return [(PREFIX + name, text.encode("utf-8", "backslashreplace")) for name, text in found.items()]


def read_dead_letter(headers: Iterable[tuple[str, bytes]]) -> DeadLetter:
    """What the headers say; of a header given twice the last counts, as it was added last.

    Raises:
        NotADeadLetter: a header is missing, or its partition or offset is no number.
    """
    found = {
        name.removeprefix(PREFIX): (value or b"").decode("utf-8", "replace")
        for name, value in headers
        if name.startswith(PREFIX) or name == CUT
    }
    try:
        return DeadLetter(
            exception=found["exception"],
            message=found["message"],
            topic=found["topic"],
            partition=int(found["partition"]),
            offset=int(found["offset"]),
            cut=found.get(CUT),
        )
    except KeyError as error:
        raise NotADeadLetter(f"no header {PREFIX}{error.args[0]}: is this record from the dead letters?") from error
    except ValueError as error:
        raise NotADeadLetter(f"{PREFIX}partition and {PREFIX}offset must be numbers: {error}") from error
