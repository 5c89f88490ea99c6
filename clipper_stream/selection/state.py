"""Selection state: sums over feedback, one set for every policy.

Rules of this file:
- State is additive. The state of a whole is the sum of the states of its parts, in partition order, each aged to the
  time of the newest. So a part that hears nothing forgets as the others do.
- State is immutable and the same for every policy, so that an application can change its policy and keep what it
  learned, and replay can ask what another policy would have done.
- Plain Python floats in a fixed order: folding the same log gives the same bits.
- State is bounded: of more than `MOST_MODELS` models those that were scored last have totals.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from clipper_stream.errors import InvalidLabel
from clipper_stream.selection.confidence import Calibration, calibrated
from clipper_stream.selection.sufficient_statistics import Features, Moments, added, moments_of

MOST_MODELS = 256
"""Three times as many as an application has at a time. With the longest names and the most features they take 500 KB;
Kafka takes a record of a mebibyte."""


@dataclass(frozen=True, slots=True)
class ModelTotals:
    """Sums over the feedback about one model; with a discount, older feedback weighs less.

    `weighted_count` and `weighted_loss` have the same expectation whoever was asked how often: the number of
    feedbacks given while the model was a candidate, and the loss it had, or would have had, over all of them.

    Attributes:
        count: Feedbacks in which the model's own output was scored.
        loss: Sum of the model's losses, each in [0, 1].
        weighted_count: Sum of 1 / propensity.
        weighted_loss: Sum of loss / propensity.
        moments: Sums of products of features and losses, as `moments` has them; empty unless a policy that looks at
            features has learned from queries that have some.
        calibration: Losses by confidence, which forget by themselves; empty where the model gives none.

    >>> ModelTotals(2.0, 1.0, 4.0, 2.0) + ModelTotals(count=1.0, weighted_count=1.0)
    ModelTotals(count=3.0, loss=1.0, weighted_count=5.0, weighted_loss=2.0, moments=(), calibration=())

    Source: Horvitz and Thompson, "A generalization of sampling without replacement", JASA 47, 1952.
    """

    count: float = 0.0
    loss: float = 0.0
    weighted_count: float = 0.0
    weighted_loss: float = 0.0
    moments: Moments = ()
    calibration: Calibration = ()

    def __add__(self, other: "ModelTotals") -> "ModelTotals":
        return ModelTotals(
            self.count + other.count,
            self.loss + other.loss,
            self.weighted_count + other.weighted_count,
            self.weighted_loss + other.weighted_loss,
            added(self.moments, other.moments) if self.moments or other.moments else (),
            added(self.calibration, other.calibration) if self.calibration or other.calibration else (),
        )

    def scaled(self, factor: float) -> "ModelTotals":
        """Every sum but those of the calibration multiplied by the factor."""
        return ModelTotals(
            self.count * factor,
            self.loss * factor,
            self.weighted_count * factor,
            self.weighted_loss * factor,
            tuple([value * factor for value in self.moments]) if self.moments else (),
            self.calibration,
        )


@dataclass(frozen=True, slots=True)
class SelectionState:
    """Totals by model reference (`name:version`).

    A model that is a candidate no longer keeps its totals, so that a rollback finds them, until `MOST_MODELS` others
    have been scored since.

    Attributes:
        totals: By model.
        at_ms: When its last feedback came, by the log, in milliseconds since the epoch; 0: no time is kept.
        half_life_s: After so many seconds the totals weigh half, > 0; None: they do not age.

    >>> a = SelectionState({"svm:1": ModelTotals(1.0, 0.5, 1.0, 0.5)}, at_ms=1_000, half_life_s=60.0)
    >>> merge([a, a.aged(61_000)]).of("svm:1").count
    1.0

    Source: Crankshaw et al., "Clipper", NSDI 2017, section 5, listing 2 (the `S` that `observe` returns); Cormode,
    Shkapenyuk, Srivastava and Xu, "Forward decay: a practical time decay model for streaming systems", ICDE 2009
    (sums that age by time add up, in whatever order their parts come).
    """

    totals: Mapping[str, ModelTotals] = field(default_factory=dict)
    at_ms: int = 0
    half_life_s: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "totals", MappingProxyType(dict(self.totals)))

    def __reduce__(self) -> tuple[type["SelectionState"], tuple[dict[str, ModelTotals], int, float | None]]:
        return SelectionState, (dict(self.totals), self.at_ms, self.half_life_s)

    def of(self, model: str) -> ModelTotals:
        """The model's totals, zero when nothing is known of it."""
        return self.totals.get(model, _NOTHING)

    def aged(self, at_ms: int) -> "SelectionState":
        """The state at a later time of the log; itself where nothing ages, or the time is no later."""
        passed_ms = at_ms - self.at_ms
        if self.half_life_s is None or passed_ms <= 0:
            return self
        keep = 0.5 ** (passed_ms / (1000.0 * self.half_life_s))
        totals = {model: old.scaled(keep) for model, old in self.totals.items()}
        return SelectionState(totals, at_ms, self.half_life_s)


_NOTHING = ModelTotals()


def merge(states: Iterable[SelectionState]) -> SelectionState:
    """The sum of partial states, added in the order given, each aged to the time of the newest."""
    parts = [*states]
    newest = max(parts, key=lambda state: state.at_ms, default=SelectionState())
    merged: dict[str, ModelTotals] = {}
    for state in parts:
        for model, totals in state.aged(newest.at_ms).totals.items():
            merged[model] = merged[model] + totals if model in merged else totals
    return SelectionState(merged, newest.at_ms, newest.half_life_s)


def add_losses(
    state: SelectionState,
    losses: Mapping[str, float],
    propensities: Mapping[str, float],
    keep: float = 1.0,
    features: Features = (),
) -> SelectionState:
    """The state after one feedback; beyond `MOST_MODELS` models, those that were scored longest ago are dropped.

    Args:
        state: The state before.
        losses: Loss in [0, 1] of each model that is scored; with none, the state stays as it is.
        propensities: Probability in (0, 1] with which each of these models was to be scored.
        keep: What all totals are scaled by first, in (0, 1]; see `discount_factor`.
        features: Of the query, for moments; with none, the moments stay as they are.

    Raises:
        InvalidLabel: a loss or a propensity outside its bounds.
    """
    if not losses:
        return state
    totals = dict(state.totals)
    if keep != 1.0:
        totals = {model: old.scaled(keep) for model, old in totals.items()}
    take = totals.get if len(totals) < MOST_MODELS // 2 else totals.pop  # from there on in the order of the last score
    for model, loss in losses.items():
        totals[model] = _with_loss(take(model, _NOTHING), model, loss, propensities.get(model, 0.0), features)
    if len(totals) > MOST_MODELS:
        totals = dict([*totals.items()][-MOST_MODELS:])
    return SelectionState(totals, state.at_ms, state.half_life_s)


def discount_factor(half_life: float | None) -> float:
    """The factor that scales every total before one feedback is added, so that older feedback weighs less.

    A state of several partitions forgets in each partition by the feedbacks of that partition: with P partitions
    evenly filled, the half-life of the whole is P times as many feedbacks. That keeps each partition's totals a
    function of that partition's log alone. A partition without feedback forgets nothing: for that, states age by time.
    The half-life is the number of feedbacks after which the weight of one has halved, > 0; None: never forget.

    >>> discount_factor(1.0), discount_factor(None)
    (0.5, 1.0)

    Source: Garivier and Moulines, "On upper-confidence bound policies for switching bandit problems", ALT 2011
    (their gamma).
    """
    return 1.0 if half_life is None else 0.5 ** (1.0 / half_life)


def impossible_propensity(model: str, propensity: float) -> InvalidLabel:
    """The error for a logged propensity that is outside of (0, 1]."""
    return InvalidLabel(f"propensity {propensity} of {model}: log a probability in (0, 1] with each decision")


def _with_loss(before: ModelTotals, model: str, loss: float, propensity: float, features: Features) -> ModelTotals:
    if not 0.0 <= loss <= 1.0:
        raise InvalidLabel(f"loss {loss} of {model}: give a loss in [0, 1]")
    if not 0.0 < propensity <= 1.0:
        raise impossible_propensity(model, propensity)
    return ModelTotals(
        before.count + 1.0,
        before.loss + loss,
        before.weighted_count + 1.0 / propensity,
        before.weighted_loss + loss / propensity,
        added(before.moments, moments_of(features, loss)) if features else before.moments,
        before.calibration,
    )


def with_calibration(
    state: SelectionState, losses: Mapping[str, float], confidences: Mapping[str, float]
) -> SelectionState:
    """The state after the losses, in [0, 1], of models that gave a confidence, in [0, 1], with their outputs."""
    totals = dict(state.totals)
    for model in confidences.keys() & losses.keys() & totals.keys():
        known = calibrated(totals[model].calibration, confidences[model], losses[model])
        totals[model] = replace(totals[model], calibration=known)
    return replace(state, totals=totals)


def average_loss(state: SelectionState, candidates: Sequence[str], unknown: float = 0.0) -> float:
    """Average, in [0, 1], of the mean losses of the candidates that have been scored; `unknown` without any."""
    known = [totals.loss / totals.count for totals in map(state.of, candidates) if totals.count > 0.0]
    return sum(known) / len(known) if known else unknown
