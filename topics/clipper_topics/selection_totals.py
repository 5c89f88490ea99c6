"""Totals of one partition's selection state: the rows of the selection table and the selection topic."""

import msgspec

ROW_VERSION = 1


class ModelTotalsRecord(msgspec.Struct, array_like=True):
    """Sums over the feedback about one model, as `clipper_stream.selection.state.ModelTotals`."""

    model: str
    count: float
    loss: float
    weighted_loss: float
    weighted_count: float = 0.0


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
