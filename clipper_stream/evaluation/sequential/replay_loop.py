"""What every way to walk a log in order has in common: the rows that say something, and what is kept of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np

from clipper_stream.evaluation.log.columns import Bools, DecisionColumns, Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRun:
    """Per-decision results of one replay, as arrays of shape (n, ...).

    Its loss is sum(numerator) / sum(denominator), over all runs of a log.

    Attributes:
        target: Probability with which it would have served each of its models alone when the decision was made, (n, K);
            0 where it was not asked, or serves several.
        numerator: Weighed loss, (n,).
        denominator: Weight, (n,); 0 where the decision says nothing.
        learned: Decisions that the candidate learns from, when their feedback comes, (n,).
        clipped: Decisions that should have counted more than they can, so that the estimate leans to the log, (n,).

    Source: Owen, "Monte Carlo theory, methods and examples", 2013, section 9.2 (the self-normalised mean).
    """

    target: Floats
    numerator: Floats
    denominator: Floats
    learned: Bools
    clipped: Bools

    @classmethod
    def blank(cls, rows: int, models: int) -> "ReplayRun":
        """Return a run in which no decision counts yet."""
        return cls(
            target=np.zeros((rows, models)),
            numerator=np.zeros(rows),
            denominator=np.zeros(rows),
            learned=np.zeros(rows, np.bool_),
            clipped=np.zeros(rows, np.bool_),
        )


class ReplayedQuery(NamedTuple):
    """A decision whose truth is known, as a walk looks at it.

    Attributes:
        row: In its columns.
        at_ms: When it was decided.
        place: Context and partition.
        query_offset: Of the query in its partition.
        feedback_at_ms: When the feedback came; not before the decision, whatever the clocks say.
        feedback_offset: In the partition.
        features: Of the query, empty for one without.
    """

    row: int
    at_ms: int
    place: tuple[str | None, int]
    query_offset: int
    feedback_at_ms: int
    feedback_offset: int
    features: tuple[float, ...] = ()


def queries_in_order(columns: DecisionColumns, wanted: Bools) -> Iterator[ReplayedQuery]:
    """The wanted decisions by the time of their making; of equal times, as they stand in the columns."""
    order = np.argsort(columns.at_ms, kind="stable")
    order = order[wanted[order]]
    later = np.maximum(columns.feedback_at_ms, columns.at_ms)
    contexts = columns.contexts
    arrays = (columns.at_ms, columns.context, columns.partition, columns.query_offset, later, columns.feedback_offset)
    given = features_of(columns.take(order)) if columns.features.shape[1] else repeat((), len(order))
    for row, at_ms, context, partition, query, feedback_at_ms, feedback, features in zip(
        order.tolist(), *(array[order].tolist() for array in arrays), given, strict=True
    ):
        yield ReplayedQuery(row, at_ms, (contexts[context], partition), query, feedback_at_ms, feedback, features)


def features_of(columns: DecisionColumns) -> list[tuple[float, ...]]:
    """Of each decision's query, without what stands for nothing behind them."""
    counts = (~np.isnan(columns.features)).sum(axis=1).tolist()
    return [tuple(row[:count]) for row, count in zip(columns.features.tolist(), counts, strict=True)]
