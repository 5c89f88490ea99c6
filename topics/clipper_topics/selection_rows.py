"""Rows of the selection table: the one codec of its changelog, of the selection topic and of saved rows.

    RowKey, SelectionRow   as bytes: a record of the changelog and of the selection topic
    SavedRow               with names: in the record of a change, in the marker of a restore, in a file

Rules of this file:
- Of the rows with one key the last in the log counts, as for Kafka's compaction: a partition has one writer.
- Keys with the empty application are notes, not rows: under the context None stands the partition's feedback position
  and what contexts were forgotten, under an application's name its newest restore (the offset of the marker, and
  `applied` is the offset of the declaration on the control topic), and under `config_context` its policies and losses.
"""

from collections.abc import Mapping

import msgspec

from clipper_topics.errors import UnknownRowVersion

ROW_VERSION = 1
NOT_DECLARED = 0
MOST_CONFIGS = 16
"""More than anybody changes an application's policy or loss while its feedback is kept; the oldest is forgotten."""
MOST_FORGETTINGS = 64
"""Millions of contexts, more than come while their feedback is kept; the oldest is dropped."""
POSITION = ("", None)
"""Application and context of the note that holds a partition's feedback position."""


class ModelTotalsRecord(msgspec.Struct, array_like=True):
    """Sums over the feedback about one model, as `clipper_stream.selection.state.ModelTotals`."""

    model: str
    count: float
    loss: float
    weighted_loss: float
    weighted_count: float = 0.0
    moments: tuple[float, ...] = ()
    calibration: tuple[float, ...] = ()


class ConfigStart(msgspec.Struct, array_like=True, frozen=True):
    """Where an application's policy and loss took effect in a partition."""

    first: int
    """First feedback offset that was folded under them."""
    config: int
    """Their digest; `NOT_DECLARED`: the application did not exist, and its feedback taught nothing."""


class ForgottenContexts(msgspec.Struct, array_like=True, frozen=True):
    """Where the contexts of a partition that had no feedback for the longest were forgotten: their rows are deleted."""

    first: int
    """First feedback offset that was folded without them."""
    before: int
    """Rows with a context whose last change is before this feedback offset are forgotten."""


class SelectionRow(msgspec.Struct, array_like=True):
    """Totals of one (application, context) in one partition."""

    version: int
    """Of this layout: `ROW_VERSION`."""
    offset: int
    """Feedback offset of the last change; -1: none yet."""
    applied: int = 0
    """Feedbacks that counted."""
    totals: list[ModelTotalsRecord] = []
    """By model, in the order in which the models were first scored."""
    configs: tuple[ConfigStart, ...] = ()
    """Of the note of an application's policies and losses: the newest, oldest first."""
    topic_ids: tuple[bytes, ...] = ()
    """Of the position: the ids of the topics that it and the rows refer to, in the order of `Catalogue.logs`."""
    forgotten: tuple[ForgottenContexts, ...] = ()
    """Of the position: the newest, oldest first."""
    at_ms: int = 0
    """When the last feedback in the totals came, where they age."""
    half_life_s: float | None = None
    """After so many seconds the totals weigh half; None: they do not age."""


class _RowHead(msgspec.Struct, array_like=True):
    """The part of a row that tells when it changed last."""

    version: int
    offset: int


class RowKey(msgspec.Struct, array_like=True, frozen=True):
    """Key of a row."""

    application: str
    context: str | None
    partition: int


class SavedRow(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Totals of one row of the selection table, as they were."""

    partition: int
    """Of the queries."""
    context: str | None = None
    """The row's context."""
    totals: dict[str, tuple[float, float, float, float]] = {}
    """By model: count, loss, weighted count, weighted loss (`clipper_stream.selection.state.ModelTotals`)."""
    moments: dict[str, tuple[float, ...]] = {}
    """By model, of those that have some: sums of products of features and losses."""
    at_ms: int = 0
    """When the last feedback in the totals came, where they age."""
    half_life_s: float | None = None
    """After so many seconds the totals weigh half; None: they do not age."""


NO_ROW = SelectionRow(version=ROW_VERSION, offset=-1)
_encode = msgspec.msgpack.Encoder().encode
_rows, _heads = msgspec.msgpack.Decoder(SelectionRow), msgspec.msgpack.Decoder(_RowHead)
_keys = msgspec.msgpack.Decoder(RowKey)


# --- bytes ----------------------------------------------------------------------------------------------------------
def encode_row(row: SelectionRow) -> bytes:
    """Return the row as msgpack."""
    return _encode(row)


def decode_row(value: bytes) -> SelectionRow:
    """Return the row in a record's value; `UnknownRowVersion` for another version, `ValueError` for no row."""
    row = _rows.decode(value)
    if row.version != ROW_VERSION:
        found = f"a selection row has version {row.version}, this release reads {ROW_VERSION}"
        raise UnknownRowVersion(f"{found}: start the release that wrote it, or a newer one")
    return row


def offset_of(value: bytes) -> int:
    """Return the offset of a row in a record's value, for less than the whole row costs.

    >>> offset_of(encode_row(note_row(9)))
    9
    """
    return _heads.decode(value).offset


def encode_key(key: RowKey) -> bytes:
    """Return the key as msgpack."""
    return _encode(key)


def decode_key(key: bytes | None) -> RowKey:
    """Return the key of a row; `ValueError` where the bytes are none."""
    return _keys.decode(key or b"")


def prefix_of(application: str) -> bytes:
    """Return what the keys of an application's rows begin with.

    >>> encode_key(RowKey("digits", "user-7", 3)).startswith(prefix_of("digits"))
    True
    """
    return encode_key(RowKey(application, None, 0))[:-2]


def is_context(key: RowKey) -> bool:
    """Return whether a key is that of a row with a context, and of no note."""
    return bool(key.application) and key.context is not None


def read_row(key: bytes | None, value: bytes | None) -> tuple[RowKey, SelectionRow | None] | None:
    """Return the row of a record, None in its place when it is deleted; None for bytes that are no row.

    A row of another version raises `UnknownRowVersion`.

    >>> read_row(encode_key(RowKey("digits", None, 3)), encode_row(note_row(9)))[1].offset
    9
    >>> read_row(encode_key(RowKey("digits", "user-7", 3)), None)
    (RowKey(application='digits', context='user-7', partition=3), None)
    >>> read_row(b"", b"nonsense") is None
    True
    """
    try:
        return decode_key(key), None if value is None else decode_row(value)
    except UnknownRowVersion:
        raise
    except ValueError:
        return None


def set_row(rows: dict[RowKey, SelectionRow], key: RowKey, row: SelectionRow | None) -> None:
    """Set a row as `read_row` returned it, or delete it."""
    if row is None:
        rows.pop(key, None)
    else:
        rows[key] = row


def note_row(offset: int, applied: int = 0) -> SelectionRow:
    """Return a row without totals: a note, or what a restore has emptied."""
    return SelectionRow(version=ROW_VERSION, offset=offset, applied=applied)


def config_context(application: str) -> str:
    """Return the context of the note that holds an application's policies and losses; no application has this name."""
    return f"{application}/config"


def config_note(before: SelectionRow, start: ConfigStart) -> SelectionRow:
    """Return the note of an application's policies and losses after another one took effect.

    >>> config_note(NO_ROW, ConfigStart(first=7, config=99)).configs
    (ConfigStart(first=7, config=99),)
    """
    configs = (*before.configs, start)[-MOST_CONFIGS:]
    return SelectionRow(version=ROW_VERSION, offset=start.first, configs=configs)


def position_note(
    before: SelectionRow, position: int, topic_ids: tuple[bytes, ...], forgotten: tuple[ForgottenContexts, ...] = ()
) -> SelectionRow:
    """Return the note of a partition's position after another step, or after contexts were forgotten.

    >>> position_note(NO_ROW, 7, (), (ForgottenContexts(first=8, before=3),)).forgotten
    (ForgottenContexts(first=8, before=3),)
    """
    kept = (*before.forgotten, *forgotten)[-MOST_FORGETTINGS:]
    return SelectionRow(version=ROW_VERSION, offset=position, topic_ids=topic_ids, forgotten=kept)


# --- saved rows -----------------------------------------------------------------------------------------------------
def saved_rows(rows: Mapping[RowKey, SelectionRow]) -> list[SavedRow]:
    """Return rows of one application as they can be kept, by partition and context."""
    ordered = sorted(rows.items(), key=lambda item: (item[0].partition, item[0].context is not None, item[0].context))
    return [
        SavedRow(
            partition=key.partition,
            context=key.context,
            totals={one.model: (one.count, one.loss, one.weighted_count, one.weighted_loss) for one in row.totals},
            moments={one.model: one.moments for one in row.totals if one.moments},
            at_ms=row.at_ms,
            half_life_s=row.half_life_s,
        )
        for key, row in ordered
    ]


def unsaved(saved: SavedRow, offset: int = -1, applied: int = 0) -> SelectionRow:
    """Return what a row held when it was saved, as the row after the feedback at an offset; calibration begins anew.

    >>> unsaved(SavedRow(partition=0, totals={"svm:1": (2.0, 1.0, 4.0, 3.0)})).totals[0].weighted_loss
    3.0
    """
    totals = [
        ModelTotalsRecord(model, count, loss, weighted_loss, weighted_count, saved.moments.get(model, ()))
        for model, (count, loss, weighted_count, weighted_loss) in saved.totals.items()
    ]
    return SelectionRow(
        version=ROW_VERSION,
        offset=offset,
        applied=applied,
        totals=totals,
        at_ms=saved.at_ms,
        half_life_s=saved.half_life_s,
    )
