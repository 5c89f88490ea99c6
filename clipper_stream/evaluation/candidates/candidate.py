"""What a candidate is: somebody who could have decided, whose loss is asked for."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from clipper_stream.evaluation.log.columns import DecisionColumns, Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Targeted:
    """What a candidate would have done with n decisions.

    Attributes:
        columns: The decisions, with one more column for an ensemble.
        target: Probability with which it serves each of their models alone, rows summing to 1, (n, M).

    >>> from clipper_stream.evaluation.candidates.one_model import OneModel
    >>> from clipper_stream.evaluation.log.arrays import logged
    >>> OneModel(model="m1:1").targeted(logged([[0.5, 0.5]], [[0.0, 1.0]])).target.tolist()
    [[0.0, 1.0]]

    Source: Dudik, Langford and Li, "Doubly robust policy evaluation and learning", ICML 2011, section 2.
    """

    columns: DecisionColumns
    target: Floats


@runtime_checkable
class Candidate(Protocol):
    """Anybody with a name."""

    @property
    def name(self) -> str:
        """How it is called in a report: the text that it was parsed from."""
        ...

    @property
    def models(self) -> tuple[str, ...]:
        """Model versions that it asks."""
        ...


@runtime_checkable
class StationaryCandidate(Candidate, Protocol):
    """One that does not learn on the way: what it would do is known before, and every estimator can judge it."""

    def targeted(self, columns: DecisionColumns) -> Targeted:
        """What it would have done, for any chunk of a log.

        Args:
            columns: n decisions. A model of the candidate that has no column was never asked.
        """
        ...
