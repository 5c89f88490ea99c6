"""Totals of one partition's selection state: the rows of the selection table and the selection topic.

Rules of this file:
- A row is written by `encode_row`: a model without moments has five fields, as before there were any, so the rows of
  policies that look at no features are the same bytes for ever.
"""

import msgspec

ROW_VERSION = 1


class ModelTotalsRecord(msgspec.Struct, array_like=True):
    """Sums over the feedback about one model, as `clipper_stream.selection.state.ModelTotals`."""

    model: str
    count: float
    loss: float
    weighted_loss: float
    weighted_count: float = 0.0
    moments: tuple[float, ...] = ()


class SelectionRow(msgspec.Struct, array_like=True):
    """Totals of one (application, context) in one partition.

    `offset` is the feedback offset of the last change: of two rows with one key, the higher offset is the newer.
    """

    version: int
    """Of this layout: `ROW_VERSION`."""
    offset: int
    """Feedback offset of the last change; -1: none yet."""
    applied: int = 0
    """Feedbacks that counted."""
    totals: list[ModelTotalsRecord] = []
    """By model, in the order in which the models were first scored."""


class RowKey(msgspec.Struct, array_like=True, frozen=True):
    """Key of a row. The empty application holds the partition's feedback position, under the context None.

    Under an application's name as the context it holds that application's newest restore: the offset is that of the
    marker, and `applied` that of the declaration on the control topic.
    """

    application: str
    context: str | None
    partition: int


_encode = msgspec.msgpack.Encoder().encode


def encode_row(row: SelectionRow) -> bytes:
    """The row as bytes: msgpack, without what a model does not have.

    >>> row = SelectionRow(version=1, offset=9, totals=[ModelTotalsRecord("svm:1", 1.0, 0.0, 0.0, 1.0)])
    >>> msgspec.msgpack.decode(encode_row(row))
    [1, 9, 0, [['svm:1', 1.0, 0.0, 0.0, 1.0]]]
    """
    totals = [
        one if one.moments else (one.model, one.count, one.loss, one.weighted_loss, one.weighted_count)
        for one in row.totals
    ]
    return _encode((row.version, row.offset, row.applied, totals))
