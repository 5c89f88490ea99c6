"""Logged decisions as columns: a row a decision, an array a fact, so that a million of them are estimated at once.

Rules of this file:
- n decisions, M model versions that any of them asked. A matrix is (n, M), its columns in the order of `models`.
- What is not known is NaN in a float, -1 in a number, a code or a time. False and 0 are facts.
- Losses are those that the learning step (`clipper_stream.feedback.update.score`) gives each model, so an estimate and
  the live table stand on the same numbers.
- Rows stand in log order within a partition, by the offset of the prediction.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.log.configuration import Configuration

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Codes = NDArray[np.int32]

UNKNOWN = -1
_NOT_KNOWN = Configuration()


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionColumns:
    """Decisions of one application, an array a field.

    Attributes:
        models: References (`name:version`), in the order of the matrices' columns.
        contexts: Contexts that `context` counts through; None is "without one".
        policies: Names of policies that `policy` counts through.
        values: Outputs and labels as JSON, that `output`, `answer` and `label` count through.
        partition: Of the query, (n,).
        offset: Of the prediction in its partition, (n,).
        query_offset: Of the query in its partition, (n,).
        at_ms: When it was decided, milliseconds since the epoch, (n,).
        context: Index into `contexts`, (n,).
        policy: Index into `policies`, (n,).
        revision: Of the application's manifest that decided, (n,).
        propensity: Probability with which each model was asked, in (0, 1]; 0 where it was not asked, (n, M).
        served: Models that were asked for the answer, also those that did not answer in time, (n, M).
        served_propensity: Probability that exactly these were served, in (0, 1], (n,).
        answered: Models that answered in time, (n, M).
        latency_ms: From the decision until the model's output was there; NaN where it was not, (n, M).
        output: Each model's output as an index into `values`, (n, M).
        answer: What the application got, likewise, (n,).
        confidence: Share of the asked models that agreed with the answer, in [0, 1], (n,).
        default: Whether the default output was given, (n,).
        feedback_offset: Of the feedback that counted, in the partition of the query; -1: none came, (n,).
        feedback_at_ms: When it came, milliseconds since the epoch, (n,).
        label: What was true, as an index into `values`; -1 where feedback gave a loss or a reward, (n,).
        loss: Loss in [0, 1] of each model that the feedback scores; NaN where it says nothing, (n, M).
        answer_loss: Loss in [0, 1] of the answer, (n,).
        several_rows: Whether outputs, answer and label are lists, an element a row of the query, (n,).
        features: Numbers that a contextual policy chose by, NaN where a query has fewer of them or none, (n, F).
        configs: Configurations that decided, by revision, as far as they are known.

    >>> empty = DecisionColumns.empty(["svm:1", "knn:1"])
    >>> len(empty), empty.propensity.shape, empty.features.shape
    (0, (0, 2), (0, 0))

    Source: Bottou et al., "Counterfactual reasoning and learning systems", JMLR 14, 2013, section 4 (what a log has to
    hold).
    """

    models: tuple[str, ...]
    contexts: tuple[str | None, ...]
    policies: tuple[str, ...]
    values: tuple[str, ...]
    partition: Codes
    offset: Ints
    query_offset: Ints
    at_ms: Ints
    context: Codes
    policy: Codes
    revision: Codes
    propensity: Floats
    served: Bools
    served_propensity: Floats
    answered: Bools
    latency_ms: Floats
    output: Codes
    answer: Codes
    confidence: Floats
    default: Bools
    feedback_offset: Ints
    feedback_at_ms: Ints
    label: Codes
    loss: Floats
    answer_loss: Floats
    several_rows: Bools
    features: Floats
    configs: Mapping[int, Configuration] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def asked(self) -> Bools:
        """Models that were asked, for the answer or for the log, (n, M)."""
        return self.propensity > 0.0

    @property
    def with_feedback(self) -> Bools:
        """Decisions about which the truth is known, (n,)."""
        return self.feedback_offset >= 0

    def config(self, revision: int) -> Configuration:
        """The configuration of a revision; the default one where it is not known."""
        return self.configs.get(revision, _NOT_KNOWN)

    def configured(self, value: Callable[[Configuration], Any]) -> NDArray[Any]:
        """What the configuration of each decision says, (n, K)."""
        revisions, place = np.unique(self.revision, return_inverse=True)
        return np.array([value(self.config(number)) for number in [*revisions.tolist(), UNKNOWN]])[place]

    @classmethod
    def empty(cls, models: Sequence[str] = (), rows: int = 0) -> Self:
        """Return so many decisions of these models whose arrays are all zeros."""
        arrays: dict[str, Any] = {
            name: np.zeros((rows, len(models)) if one.wide else rows, one.kind) for name, one in ARRAYS.items()
        }
        features = np.empty((rows, 0))
        return cls(models=tuple(models), contexts=(), policies=(), values=(), features=features, **arrays)

    def take(self, rows: Any) -> Self:
        """Some of the decisions: a mask, a slice, or indices in the order wanted."""
        arrays: dict[str, Any] = {name: getattr(self, name)[rows] for name in ARRAYS}
        return replace(self, features=self.features[rows], **arrays)

    def of_models(self, models: Sequence[str]) -> Self:
        """The same decisions with these columns, and no others; a model that was never asked has an empty one."""
        if self.models == tuple(models):
            return self
        place = {model: number for number, model in enumerate(self.models)}
        found = [place.get(model, UNKNOWN) for model in models]
        wide: dict[str, Any] = {}
        for name, one in ARRAYS.items():
            if one.wide:
                matrix = np.full((len(self), len(models)), one.nothing, one.kind)
                for column, source in enumerate(found):
                    if source != UNKNOWN:
                        matrix[:, column] = getattr(self, name)[:, source]
                wide[name] = matrix
        return replace(self, models=tuple(models), **wide)

    def of_contexts(self, contexts: tuple[str | None, ...]) -> Self:
        """The same decisions, whose contexts are counted through these, which have to be among them."""
        if self.contexts == contexts:
            return self
        number = {name: code for code, name in enumerate(contexts)}
        return replace(self, contexts=contexts, context=_recoded(self.context, self.contexts, number))

    def with_model(self, name: str, loss: Floats, propensity: Floats, output: Codes | None = None) -> Self:
        """The same decisions with one more model, so that every estimator works as for the others.

        Args:
            name: How the column is called; none of theirs.
            loss: In [0, 1]; NaN where it is not known, (n,).
            propensity: Probability in (0, 1] that it could be known, 0 where nothing of it was seen, (n,): 1 for a
                model that was run on every logged input, the probability of asking all its members for an ensemble.
            output: Index into `values`; -1 where there is none, (n,). Absent: none.

        Raises:
            InvalidSetting: there is such a column.
        """
        if name in self.models:
            raise InvalidSetting(f"column {name!r} is there: give a name that is none of {', '.join(self.models)}")
        wider = self.of_models([*self.models, name])
        wider.loss[:, -1] = loss
        wider.propensity[:, -1] = propensity
        wider.answered[:, -1] = (propensity > 0.0) & ~np.isnan(loss)
        wider.output[:, -1] = UNKNOWN if output is None else output
        return wider


class ArrayKind(NamedTuple):
    """Type of an array's elements, whether it has a column a model, and what stands for nothing."""

    kind: Any
    wide: bool
    nothing: Any


VOCABULARIES = {"contexts": ("context",), "policies": ("policy",), "values": ("output", "answer", "label")}
"""Arrays that count through each tuple of words."""
_KINDS: dict[Any, tuple[Any, Any]] = {
    Floats: (np.float64, np.nan),
    Bools: (np.bool_, False),
    Ints: (np.int64, UNKNOWN),
    Codes: (np.int32, UNKNOWN),
}
_WIDE = ("propensity", "served", "answered", "latency_ms", "output", "loss")
ARRAYS = {
    one.name: ArrayKind(
        _KINDS[one.type][0], one.name in _WIDE, 0.0 if one.name == "propensity" else _KINDS[one.type][1]
    )
    for one in fields(DecisionColumns)
    if one.type in _KINDS and one.name != "features"  # neither a column a model nor one number a decision
}
"""Every array but `features`, by its name."""


def _recoded(codes: Codes, words: Sequence[Any], number: dict[Any, int]) -> Codes:
    """The same words by their numbers in another vocabulary; -1 stays."""
    table = np.array([*(number[word] for word in words), UNKNOWN], np.int32)  # the last one is what -1 points to
    return table[codes]


def distinct_rows(codes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The different rows of codes, each -1 or more, and which of them each row is."""
    if not len(codes):
        return codes, np.zeros(0, np.intp)
    sizes = [int(size) for size in codes.max(axis=0) + 2]
    if np.prod([float(size) for size in sizes]) >= 2.0**63:  # no one number a row
        different, place = np.unique(codes, axis=0, return_inverse=True)
        return different, place.reshape(-1)
    number = np.zeros(len(codes), np.int64)
    for column, size in enumerate(sizes):
        number = number * size + (codes[:, column] + 1)
    _, first, place = np.unique(number, return_index=True, return_inverse=True)
    return codes[first], place
