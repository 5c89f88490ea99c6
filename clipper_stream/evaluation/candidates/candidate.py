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
    """A policy, model or ensemble whose loss is estimated."""

    @property
    def name(self) -> str:
        """Name in reports: the text that the candidate was parsed from."""
        ...

    @property
    def models(self) -> tuple[str, ...]:
        """Model versions that the candidate may ask."""
        ...


@runtime_checkable
class StationaryCandidate(Candidate, Protocol):
    """A candidate that does not learn during replay, so that every estimator applies to it."""

    def targeted(self, columns: DecisionColumns) -> Targeted:
        """Return what the candidate would have done on any chunk of a log.

        Args:
            columns: n decisions. A model of the candidate that has no column was never asked.
        """
        ...
