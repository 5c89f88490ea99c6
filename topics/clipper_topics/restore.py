"""Restores of an application's selection state: a declaration, and a marker in each partition.

control topic   restore/<id>: Restore        who, when, why, and what each marker has to hold
feedback topic  one Marker a partition       header `clipper-restore: <id>`, msgpack

Rules of this file:
- The declaration comes first: a marker counts only if its value has the digest that stands there. So whoever may write
  feedback alone cannot set totals.
- A marker says everything about its application in its partition: a row that it does not name is emptied.
- Of two restores of one application the later one on the control topic wins, in every partition.
- Only this project's own commands write either of them.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from clipper_topics.manifests import REF_PATTERN, Name, Sha256, Text
from clipper_topics.query import MOST_FEATURES
from clipper_topics.selection_rows import SavedRow

RESTORE = "clipper-restore"
"""Header of a marker; its value is the id of the restore."""
MAX_MARKER_BYTES = 900 * 1024
"""Of a marker: a record of the feedback topic has at most a mebibyte by the brokers' default."""
MAX_BEFORE_BYTES = 200 * 1024
"""Of the rows before that a declaration keeps: every process that follows the control topic reads them."""
LARGEST_MOMENT = 1e100
"""In size: no sum of products of features comes near, and no product of two overflows."""
MAX_CONTEXT_CHARACTERS = 256
ID_PATTERN = r"^r-[0-9a-f]{8,64}$(?!\n)"
"""Ids of restores."""

RestoreId = Annotated[str, Meta(pattern=ID_PATTERN)]
_ref = re.compile(REF_PATTERN)
_LENGTHS = [width * (width + 3) // 2 for width in range(2, MOST_FEATURES + 2)]
"""Numbers of moments: of a constant and one feature or more."""


class Restore(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One restored selection state: what the markers in the feedback topic have to hold to count."""

    application: Name
    """The application."""
    at_ms: int
    """When, milliseconds since the epoch."""
    by: Text
    """Who."""
    why: str = ""
    """The reason that was given."""
    digests: dict[str, Sha256]
    """Partition number as text, and the sha256 of the value of its marker."""
    undoes: RestoreId | None = None
    """The restore that this one takes back."""
    before: list[SavedRow] | None = None
    """The rows before; absent when they were too large to keep here, and then it cannot be undone."""


class Marker(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A record on the feedback topic: from here on the rows of the application in this partition are these."""

    application: Name
    """The application."""
    rows: list[SavedRow]
    """Every row of it that is not empty."""


class UnusableRows(ValueError):
    """Rows that no restore can have; the message says which, and what to do."""


_encode = msgspec.msgpack.Encoder().encode
_markers = msgspec.msgpack.Decoder(Marker)


def check_rows(rows: Iterable[SavedRow], partitions: int) -> None:
    """Check that rows can be restored.

    >>> check_rows([SavedRow(partition=0, totals={"svm:1": (2.0, 1.0, 2.0, 1.0)})], partitions=1)

    Raises:
        UnusableRows: a partition that does not exist, a row that comes twice, or a sum that none can be.
    """
    seen: set[tuple[int, str | None]] = set()
    for row in rows:
        place = (row.partition, row.context)
        wrong = "it comes twice: name each row once" if place in seen else _wrong_with(row, partitions)
        if wrong is not None:
            raise UnusableRows(f"row of partition {row.partition}, context {row.context!r}: {wrong}")
        seen.add(place)


def _wrong_with(row: SavedRow, partitions: int) -> str | None:
    """Return what is wrong with a row and what to do; None when nothing is wrong."""
    if not 0 <= row.partition < partitions:
        return f"there are partitions 0 to {partitions - 1}: restore where the rows were saved"
    if row.context is not None and not 1 <= len(row.context) <= MAX_CONTEXT_CHARACTERS:
        return f"a context has 1 to {MAX_CONTEXT_CHARACTERS} characters: correct it"
    for model, sums in row.totals.items():
        if not _ref.match(model):
            return f"{model[:100]!r} is no model version: write name:version"
        if not all(0.0 <= value < math.inf for value in sums):
            return f"the sums of {model} are {sums}: give finite numbers that are not negative"
    if row.at_ms < 0 or (row.half_life_s is not None and not 0.0 < row.half_life_s < math.inf):
        return (
            f"its sums are of {row.at_ms} ms with a half-life of {row.half_life_s} s: give a time and a positive number"
        )
    return _wrong_with_moments(row)


def _wrong_with_moments(row: SavedRow) -> str | None:
    for model, moments in row.moments.items():
        if model not in row.totals:
            return f"{model[:100]!r} has moments and no totals: give both"
        if len(moments) not in _LENGTHS:
            return f"{len(moments)} moments of {model}: {MOST_FEATURES} features at most have {_LENGTHS[-1]}"
        if not all(abs(value) <= LARGEST_MOMENT for value in moments):
            return f"a moment of {model} is no number or too large: give numbers of at most {LARGEST_MOMENT:g} in size"
    return None


def _marker(application: str, rows: Iterable[SavedRow]) -> bytes:
    """Encode the marker of one partition, of which these are the rows; empty ones are left out."""
    kept = [row for row in rows if row.totals]
    value = _encode(Marker(application=application, rows=kept))
    if len(value) > MAX_MARKER_BYTES:
        raise UnusableRows(
            f"partition {kept[0].partition} has {len(kept)} rows in {len(value)} bytes: at most {MAX_MARKER_BYTES} "
            "bytes a partition can be restored: leave out contexts that are used no more"
        )
    return value


def decode_marker(value: bytes, partition: int, partitions: int) -> Marker:
    """Return the marker that stands in one of the partitions of the topic.

    Raises:
        UnusableRows: the value is no marker, or has rows that cannot be restored, or rows of another partition.
    """
    try:
        marker = _markers.decode(value)
    except (ValueError, RecursionError) as error:
        raise UnusableRows(f"no marker: {error}") from error
    check_rows(marker.rows, partitions)
    foreign = sorted({row.partition for row in marker.rows} - {partition})
    if foreign:
        raise UnusableRows(f"the marker of partition {partition} has rows of partitions {foreign}: write one in each")
    return marker


def markers_of(application: str, rows: Iterable[SavedRow], partitions: int) -> list[bytes]:
    """Return the value of the marker of each partition, in order.

    >>> [len(value) > 0 for value in markers_of("digits", [], partitions=2)]
    [True, True]

    Raises:
        UnusableRows: rows that no restore can have, or more than a record of the feedback topic may hold.
    """
    given = list(rows)
    check_rows(given, partitions)
    return [_marker(application, (row for row in given if row.partition == number)) for number in range(partitions)]


def saved_in(markers: Sequence[bytes]) -> int:
    """Return how many rows the markers of all partitions, in order, have together."""
    return sum(len(decode_marker(value, number, len(markers)).rows) for number, value in enumerate(markers))


def digest(value: bytes) -> str:
    """Return the digest of a marker's value, as the declaration states it."""
    return hashlib.sha256(value).hexdigest()


def digests_of(markers: Iterable[bytes]) -> dict[str, str]:
    """Return the digest of each marker by partition number as text."""
    return {str(number): digest(value) for number, value in enumerate(markers)}


def restore_id_of(headers: Iterable[tuple[str, bytes | None]]) -> str | None:
    """Return the restore id in a record's headers; None for a record that is no marker.

    >>> restore_id_of([("clipper-restore", b"r-0123456789abcdef")]), restore_id_of([])
    ('r-0123456789abcdef', None)
    """
    found = [value or b"" for name, value in headers if name == RESTORE]
    return found[-1].decode("utf-8", "replace") if found else None


def refusal_of(restore: Restore | None, restore_id: str, value: bytes, partition: int) -> str | None:
    """Return why a marker does not count, by its value and its declaration, before it is decoded; None when it may."""
    if restore is None:
        return (
            f"no restore {restore_id[:100]!r} is declared on the control topic: "
            "use `clipper-stream selection restore APPLICATION --from FILE`, which declares it first"
        )
    wanted, found = restore.digests.get(str(partition)), digest(value)
    if wanted != found:
        return (
            f"restore {restore_id} declares {f'sha256 {wanted}' if wanted else 'no marker'} for partition {partition}, "
            f"and the marker has {found}: nothing is restored"
        )
    return None
