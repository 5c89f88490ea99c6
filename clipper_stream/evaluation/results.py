"""What an evaluation says: estimates with intervals, what they stand on, and what to be careful of.

Rules of this file:
- Losses are lower where better: in [0, 1], or where labels are numbers in their unit (squared losses in its square). A
  difference is the candidate's loss less the logged policy's.
- Every number here can be written as JSON. What is not known is NaN, and null there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its interval, from `low` to `high`, and how that was made: `bootstrap`, `normal`, ...

    >>> Estimate(value=-0.02, low=-0.03, high=-0.01).excludes_zero
    True
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    interval: str = ""

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0.0 or self.high < 0.0

    def covers(self, value: float) -> bool:
        return self.low <= value <= self.high

    def times(self, unit: float) -> "Estimate":
        return replace(self, value=unit * self.value, low=unit * self.low, high=unit * self.high)


NOTHING = Estimate(value=math.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Something over the time of the log, a number a span.

    Attributes:
        at_ms: Middle of each span, milliseconds since the epoch.
        loss: Estimated loss of each span; NaN where nothing is known.
        shares: Share of the queries of each span that each model is served for, by model.
    """

    at_ms: Sequence[int] = ()
    loss: Sequence[float] = ()
    shares: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceSize:
    """How many decisions the estimates rest on.

    Attributes:
        used: Decisions with feedback that went into the estimate.
        carrying: How many decisions decide how exact the estimate is; seldom asked models that matter show here.
        unsupported_ratio: Share of the candidate's choices that were never made in that context, in [0, 1].

    Source: Kish, "Survey Sampling", 1965, section 11.7; Owen, "Monte Carlo theory, methods and examples", 2013, 9.3.
    """

    used: int = 0
    carrying: float = math.nan
    unsupported_ratio: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextResult:
    """Losses of the logged policy and the candidate in one context; None: of queries without one.

    `decisions` are those with feedback that count for the candidate.
    """

    context: str | None
    decisions: int
    logged: float
    candidate: float
    difference: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateResult:
    """Estimates for one candidate.

    Attributes:
        name: As it was asked for.
        kind: `fixed policy`, `learning policy`, `model`, `ensemble`; `logged` for what really decided.
        headline: Name of the estimator to be read first.
        horizon: Of a candidate that learns: it is judged by so many decisions of its own, its first ones.
        estimates: Of the loss, by estimator.
        difference: Loss of the candidate less that of the logged policy, over the same decisions.
        contexts: Those with the most decisions.
        warnings: What to be careful of, a sentence each, with what to do about it.
        unknown: How far that of which nothing is known may move the difference, in either direction.

    >>> CandidateResult(name="a:1", kind="model", headline="ips", estimates={"ips": Estimate(value=0.5)}).loss.value
    0.5
    """

    name: str
    kind: str
    headline: str
    horizon: int | None = None
    estimates: Mapping[str, Estimate]
    difference: Estimate = NOTHING
    standing: EvidenceSize = field(default_factory=EvidenceSize)
    series: Series = field(default_factory=Series)
    contexts: Sequence[ContextResult] = ()
    warnings: Sequence[str] = ()
    unknown: float = 0.0

    @property
    def loss(self) -> Estimate:
        """The estimate to be read first."""
        return self.estimates[self.headline]

    @property
    def made_by(self) -> str:
        """How the loss is estimated, and of how many decisions it is that of a candidate that learns."""
        return self.headline if self.horizon is None else f"{self.headline}, first {self.horizon:,}"

    @property
    def verdict(self) -> str:
        """In a word: `better`, `worse`, or `not told apart` from what decided; `unknown` if the log cannot say."""
        if math.isnan(self.difference.value):
            return "unknown"
        if not self.difference.excludes_zero:
            return "not told apart"
        if min(abs(self.difference.low), abs(self.difference.high)) <= self.unknown:
            return "unknown"
        return "better" if self.difference.value < 0.0 else "worse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A finished evaluation: its settings, the log's figures, and the estimates for each candidate.

    Attributes:
        since_ms, until_ms: Of the first and the last decision in the log, milliseconds since the epoch.
        with_feedback: Decisions of which the truth is known and that are used.
        confidence: Of all intervals, in (0, 1).
        loss: How labels were compared with outputs.
        logged: What really decided.
        candidates: In the order in which they were asked for.
        notes: What was left out or assumed, a sentence each.
    """

    application: str
    since_ms: int
    until_ms: int
    decisions: int
    with_feedback: int
    confidence: float
    loss: str = "zero_one"
    logged: CandidateResult
    candidates: Sequence[CandidateResult]
    notes: Sequence[str] = ()

    @property
    def measure(self) -> str:
        """What a loss is, in words."""
        kind = self.loss.partition(":")[0]
        return "loss" if kind == "zero_one" else f"mean {kind} error"
