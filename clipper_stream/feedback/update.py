"""The learning step: a state, a logged decision and a feedback make the next state. Nothing else is looked at.

Rules of this file:
- Routers, the rollout controller and the replay score by the same function. So the table equals the fold of the log.
- A model is scored only by what it said itself. Feedback that says nothing about a model leaves its totals as they are.

Who is scored:

    feedback      asked                          scored, with which loss
    label         any number                     each model whose output was logged, with the loss of its output; with
                                                 1 if the label can be compared with another's output, not with its own
    label         one for the answer, missing    that model, with 1: the application got no answer because of it
    loss, reward  one for the answer, answered   that model, with the given loss
    loss, reward  one for the answer, missing    that model, with 1
    loss, reward  an ensemble                    the models that said exactly what the answer was, with the given loss
    loss, reward  any, the default was given     nobody, unless missing as above: the feedback is about the default

The ensemble's loss is a fact about its answer. A model that said the same had the same loss; of one that said something
else the loss is unknown, even where the answer was right, and guessing would score it only when it is wrong. A mean
seldom equals an output, so an application that combines by `mean` and wants its models compared has to send labels.
In an ensemble a missing model is not scored: the answer did not fail, and its confidence was lower already.

How far an output is from the label, in [0, 1]:

- Two strings are compared as text: "01" is not "1". Otherwise both sides are numbers if they can be read as such: the
  label 3 of a program and the output "3" or 3.0 of a model are equal. true counts as 1 and false as 0.
- A label of another kind than the output is refused by every loss: text against a number, a list against no list, an
  object against no object. Nobody knows what it says about the output.
- Lists are compared element by element: for `zero_one` all must be equal, the others take the mean.
- `absolute:10` and `squared:10` measure the difference by a scale: one of 10 or more has the loss 1.
- An output that is absent (None) or no finite number has the loss 1: a model must not gain by giving none. A label
  that is absent or not finite is refused: nobody can be scored by it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from clipper_stream.errors import InvalidLabel, UnknownName, shown
from clipper_stream.names import choices
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState, impossible_propensity, with_calibration

_NO_ANSWER = 1.0


@dataclass(frozen=True, slots=True)
class Label:
    """The true output; for a query of several rows a list, one a row."""

    value: Any


@dataclass(frozen=True, slots=True)
class GivenLoss:
    """What the answer cost, as the application reckons it: a loss in [0, 1], or `InvalidLabel` is raised.

    >>> GivenLoss.of_reward(0.75)
    GivenLoss(value=0.25)
    """

    value: float

    def __post_init__(self) -> None:
        _check_unit("loss", self.value)

    @classmethod
    def of_reward(cls, reward: float) -> "GivenLoss":
        """The loss `1 - reward`; `InvalidLabel` where the reward is no number in [0, 1]."""
        _check_unit("reward", reward)
        return cls(1.0 - reward)


FeedbackValue = Label | GivenLoss
"""What an application says about a query afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedDecision:
    """What the log holds about one answered query.

    Attributes:
        outputs: Output of each model that answered in time, asked for the answer or for an audit; a list, one a row,
            when `several_rows`.
        propensities: Probability of asking, in (0, 1], of every model that was asked, answered or not.
        served: Models that were asked for the answer; without an audit, all that were asked.
        served_propensity: Probability that exactly these were asked for the answer, in (0, 1].
        answer: The combined output; a list, one a row, when `several_rows`.
        default: Whether the application's default output was given instead.
        low_confidence: Whether the default was given because the models agreed too little: that is an answer.
        several_rows: Whether the query has a list of rows.
        features: Of the query, as they were logged; empty for a query without.
        context: Of the query; None: it has none.
        confidences: In [0, 1], of each model that gave one with its output.

    >>> one = LoggedDecision(outputs={"a:1": 3}, propensities={"a:1": 0.5}, served=("a:1",), answer=3)
    >>> score(one, Label(4), "zero_one").losses
    {'a:1': 1.0}

    Source: Bottou et al., "Counterfactual reasoning and learning systems", JMLR 14, 2013, section 4.
    """

    outputs: Mapping[str, Any]
    propensities: Mapping[str, float]
    served: tuple[str, ...]
    served_propensity: float | None = None
    answer: Any = None
    default: bool = False
    low_confidence: bool = False
    several_rows: bool = False
    features: tuple[float, ...] = ()
    context: str | None = None
    confidences: Mapping[str, float] = field(default_factory=dict)

    @property
    def lone(self) -> str | None:
        """The model that alone was asked for the answer; None for an ensemble."""
        return self.served[0] if len(self.served) == 1 else None

    @property
    def compare(self) -> Callable[[str, Any, Any], float]:
        """The loss of an output by a kind of loss and a label: of rows, where the query has several."""
        return loss_of_rows if self.several_rows else loss_of

    @property
    def probability(self) -> float:
        """Of asking for the answer whom it asked: as stated, or that of the lone model; 1 for an ensemble."""
        if self.served_propensity is not None:
            return self.served_propensity
        return self.propensities[self.lone] if self.lone is not None else 1.0

    @property
    def unanswered(self) -> frozenset[str]:
        """Models that were asked, for the answer or for an audit, and gave no output."""
        return frozenset(self.propensities.keys() - self.outputs.keys())


@dataclass(frozen=True, slots=True)
class Scores:
    """Loss in [0, 1] of each model that a feedback scores, and the probability, in (0, 1], that it was to be scored."""

    losses: Mapping[str, float]
    propensities: Mapping[str, float]


def fold(
    state: SelectionState,
    decision: LoggedDecision,
    feedback: FeedbackValue,
    policy: SelectionPolicy,
    loss_kind: str,
    at_ms: int = 0,
) -> SelectionState:
    """The state after one feedback.

    Args:
        state: The state before, of the partition and context that the decision belongs to.
        decision: What was logged.
        feedback: What the application said.
        policy: The application's policy; only its forgetting matters here.
        loss_kind: How a label is compared with an output: `zero_one`, `absolute` or `squared`.
        at_ms: When the feedback came, by the log, in milliseconds since the epoch.

    Raises:
        InvalidLabel: the label cannot be compared with any output, or the log holds impossible propensities.
        UnknownName: there is no such loss.

    Source: Crankshaw et al., "Clipper", NSDI 2017, section 5, listing 2 (`observe`).
    """
    scores = score(decision, feedback, loss_kind)
    learned = policy.observe_at(at_ms, state, scores.losses, scores.propensities, decision.features)
    return with_calibration(learned, scores.losses, decision.confidences) if decision.confidences else learned


def score(decision: LoggedDecision, feedback: FeedbackValue, loss_kind: str) -> Scores:
    """Which models the feedback scores, and how; arguments and errors are those of `fold`."""
    if isinstance(feedback, Label):
        losses = _by_label(decision, feedback, loss_kind)
        asking = {model: decision.propensities.get(model, 0.0) for model in losses}
        missing = _missing(decision)
        scores = Scores(losses | missing, asking | dict.fromkeys(missing, decision.probability))
    else:
        losses = _by_loss(decision, feedback)
        scores = Scores(losses, dict.fromkeys(losses, decision.probability))
    for model, propensity in scores.propensities.items():
        if not 0.0 < propensity <= 1.0:
            raise impossible_propensity(model, propensity)
    return scores


def answer_loss(decision: LoggedDecision, feedback: FeedbackValue, loss_kind: str) -> float:
    """Loss in [0, 1] of what the application got, by feedback that `score` takes.

    A default because no model answered has the loss 1, and so has an answer that the label cannot be compared with; a
    default because the models agreed too little is an answer.
    """
    if decision.default and not decision.low_confidence:
        return _NO_ANSWER
    if isinstance(feedback, GivenLoss):
        return feedback.value
    try:
        return decision.compare(loss_kind, feedback.value, decision.answer)
    except InvalidLabel:
        return _NO_ANSWER


def _by_label(decision: LoggedDecision, label: Label, loss_kind: str) -> dict[str, float]:
    """Losses of all outputs; 1 for one that the label cannot be compared with, though it can be with another.

    So a version on trial that gives nonsense is scored for it, and keeps no other model from learning.
    """
    compare = decision.compare
    losses: dict[str, float] = {}
    refused: InvalidLabel | None = None
    compared = False
    for model, output in decision.outputs.items():
        try:
            losses[model] = compare(loss_kind, label.value, output)
            compared = True
        except InvalidLabel as error:
            losses[model], refused = _NO_ANSWER, error
    if refused is not None and not compared:
        raise refused
    return losses


def _by_loss(decision: LoggedDecision, given: GivenLoss) -> dict[str, float]:
    missing = _missing(decision)
    if missing or decision.default:
        return missing
    if decision.lone is not None:
        return {decision.lone: given.value}
    served = {model: decision.outputs[model] for model in decision.served if model in decision.outputs}
    return {model: given.value for model, output in served.items() if same(output, decision.answer)}


def _missing(decision: LoggedDecision) -> dict[str, float]:
    lone = decision.lone
    return {} if lone is None or lone in decision.outputs else {lone: _NO_ANSWER}


def _check_unit(name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and 0.0 <= value <= 1.0):
        raise InvalidLabel(f"{name} is {value!r}: give a number in [0, 1]")


# --- losses -----------------------------------------------------------------------------------------------------------
def loss_of(kind: str, label: Any, output: Any) -> float:
    """Loss of one output of one row.

    Args:
        kind: `zero_one` (0 when equal, else 1), `absolute` or `squared` (of the difference, at most 1), the latter two
            with a scale behind a colon or without one.
        label: What was true.
        output: What the model said.

    >>> loss_of("squared", [1.0, 0.0], [0.5, 0.0]), loss_of("absolute:10", 7, 4)
    (0.125, 0.3)

    Raises:
        UnknownName: there is no such loss.
        InvalidLabel: the label is absent, or it and the output cannot be compared by this loss.
    """
    loss = LOSSES.get(kind) or loss_named(kind)
    if label is None:
        raise InvalidLabel("the label is null: give the true output, or a loss or a reward in [0, 1]")
    if isinstance(label, float | list | tuple) and not _is_finite(label):
        raise InvalidLabel(f"label {shown(label)} has NaN or infinity: give finite numbers")
    return 1.0 if output is None else loss(label, output)


def loss_of_rows(kind: str, labels: Any, outputs: Sequence[Any]) -> float:
    """Mean of `loss_of` over the rows of one query; `InvalidLabel` too where there is not one label a row."""
    if not isinstance(labels, list | tuple) or len(labels) != len(outputs) or not outputs:
        found = f"{len(labels)} labels" if isinstance(labels, list | tuple) else shown(labels)
        raise InvalidLabel(f"{found} for a query of {len(outputs)} rows: give a list with one label a row")
    losses = [loss_of(kind, label, output) for label, output in zip(labels, outputs, strict=True)]
    return sum(losses) / len(losses)


@cache
def loss_named(kind: str) -> Callable[[Any, Any], float]:
    """The loss of a label and an output; `UnknownName` where there is none of this name."""
    name, colon, scale = kind.partition(":")
    if name not in LOSSES or (colon and name == "zero_one"):
        raise UnknownName(f"loss {kind!r}: {choices(kind, sorted(LOSSES))}")
    return partial(LOSSES[name], scale=float(scale)) if colon else LOSSES[name]


def scale_of(kind: str) -> float:
    """The least difference that has the loss 1; infinite for `zero_one`, which measures none."""
    name, colon, scale = kind.partition(":")
    return math.inf if name == "zero_one" else float(scale) if colon else 1.0


def differences(label: Any, output: Any) -> list[float]:
    """How far each number of an output, or of its rows, is from the label's; none where they cannot be compared.

    >>> differences([1, 2.5], [4, 2])
    [3.0, 0.5]
    """
    found: list[float] = []

    def measured(difference: float) -> float:
        found.append(abs(difference))
        return 0.0

    try:
        _mean_over_elements(label, output, measured)
    except InvalidLabel:
        return []
    return found


def same(first: Any, second: Any) -> bool:
    """Whether two outputs are equal, by the rules of this file."""
    if isinstance(first, list | tuple) or isinstance(second, list | tuple):
        return (
            isinstance(first, list | tuple)
            and isinstance(second, list | tuple)
            and len(first) == len(second)
            and all(map(same, first, second))
        )
    if isinstance(first, str) and isinstance(second, str):
        return first == second
    number = _number(first), _number(second)
    return bool(first == second) if None in number else number[0] == number[1]


def _is_finite(label: Any) -> bool:
    """Whether no number in it is NaN or infinity, at any depth: without recursion, for it may be nested deeply."""
    waiting = [label]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, float) and not math.isfinite(value):
            return False
    return True


def _zero_one(label: Any, output: Any) -> float:
    kind = type(label)
    if kind is type(output) and (kind is str or (kind is int and abs(label) < _LARGEST)):  # most labels
        return 0.0 if label == output else 1.0
    if same(label, output):
        return 0.0
    if not _of_one_kind(label, output):
        what = f"label {shown(label)} and output {shown(output)} are of different kinds"
        raise InvalidLabel(f"{what}: give the label as the models give their outputs")
    return 1.0


def _of_one_kind(label: Any, output: Any) -> bool:
    """Whether both are text, objects, or numbers; of lists, whether each pair of elements is. Null is of any kind."""
    if label is None or output is None:
        return True
    if isinstance(label, list | tuple) and isinstance(output, list | tuple):
        return all(map(_of_one_kind, label, output))
    if any(isinstance(label, kind) and isinstance(output, kind) for kind in (str, dict)):
        return True
    true = _as_float(label)
    return true is not None and math.isfinite(true) and _number(output) is not None


def _absolute(label: Any, output: Any, scale: float = 1.0) -> float:
    return _mean_over_elements(label, output, lambda difference: min(1.0, abs(difference) / scale))


def _squared(label: Any, output: Any, scale: float = 1.0) -> float:
    return _mean_over_elements(label, output, lambda difference: min(1.0, abs(difference) / scale) ** 2)


def _mean_over_elements(label: Any, output: Any, loss: Callable[[float], float]) -> float:
    if isinstance(label, list | tuple) or isinstance(output, list | tuple):
        if not (isinstance(label, list | tuple) and isinstance(output, list | tuple) and len(label) == len(output) > 0):
            what = f"label {shown(label)} has another shape than output {shown(output)}"
            raise InvalidLabel(f"{what}: give one of the same shape")
        parts = [_mean_over_elements(*pair, loss) for pair in zip(label, output, strict=True)]
        return sum(parts) / len(parts)
    true, said = _as_float(label), _as_float(output)
    if true is None or said is None or not math.isfinite(true):
        what = f"label {shown(label)} and output {shown(output)}"
        raise InvalidLabel(f"{what} are no two finite numbers: use the loss zero_one")
    return loss(true - said) if math.isfinite(said) else 1.0


def _as_float(value: Any) -> float | None:
    number = _number(value)
    try:
        return None if number is None else float(number)
    except OverflowError:  # an integer beyond 1.8e308
        return math.inf


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool | int | float):
        return value
    if not isinstance(value, str):
        return None
    for read in (int, float):
        try:
            return read(value)
        except ValueError:
            continue
    return None


_LARGEST = 2**63
"""In size, of an integer that is compared as it is; one beyond all floats is no finite number."""
LOSSES: Mapping[str, Callable[..., float]] = {"zero_one": _zero_one, "absolute": _absolute, "squared": _squared}
"""Every loss by its name."""
