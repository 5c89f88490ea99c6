"""How an application was configured when it decided: whom it could choose, whom it tried, and how it answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clipper_stream.combining.combiner import COMBINERS, combine
from clipper_stream.errors import InvalidLabel, ModelFailed, UnknownName
from clipper_stream.feedback.update import loss_named, loss_of, loss_of_rows
from clipper_stream.selection.parameters import check_number

_NO_ANSWER = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What a revision of an application's manifest says about its decisions.

    Attributes:
        models: Candidates of its policy, in its order; empty: not known.
        asked: Those of them that its policy or an audit may ask.
        trials: Versions on trial, each with the interval of the second random number (`selection.trials`) that asks it.
        audit_ratio: Share of the queries that asked all candidates, in [0, 1].
        combiner: `vote` or `mean`.
        loss: `zero_one`, `absolute` or `squared`, the latter two with a scale behind a colon or without one.
        confidence_threshold: Below it the default output is given, in [0, 1].
        contexts_drawn: Whether contexts, and not each of their queries, drew whether a canary served them.

    >>> Configuration(confidence_threshold=0.6, default_output="none").loss_of(
    ...     {"svm:1": "cat", "knn:1": "dog"}, {"svm:1": 0.9, "knn:1": 0.1}, "cat")
    1.0

    Raises:
        UnknownName: there is no such combiner or loss.
        InvalidSetting: the threshold is out of its bounds.
    """

    models: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    trials: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    audit_ratio: float = 0.0
    combiner: str = "vote"
    loss: str = "zero_one"
    default_output: Any = None
    confidence_threshold: float = 0.0
    contexts_drawn: bool = False

    def __post_init__(self) -> None:
        loss_named(self.loss)
        if self.combiner not in COMBINERS:
            raise UnknownName(f"combiner {self.combiner!r}: use one of {', '.join(sorted(COMBINERS))}")
        check_number("confidence threshold", self.confidence_threshold, most=1.0)

    def loss_of(
        self, outputs: Mapping[str, Any], weights: Mapping[str, float], label: Any, *, several_rows: bool = False
    ) -> float:
        """Loss of the answer in [0, 1]; 1 where the label, which counted, cannot be compared with it.

        Outputs are of the members that answered, weights of all that were asked. Of several rows outputs and label are
        lists, with None for a row without an output.
        """
        each = _rows(outputs) if several_rows else [outputs]
        try:
            rows = [combine(self.combiner, row, weights, len(weights)) for row in each]
        except ModelFailed:  # nobody answered, or nothing that can be combined
            return _NO_ANSWER
        sure = min(row.confidence for row in rows) >= self.confidence_threshold
        answer = [row.output if sure else self.default_output for row in rows]
        try:
            return loss_of_rows(self.loss, label, answer) if several_rows else loss_of(self.loss, label, *answer)
        except InvalidLabel:
            return _NO_ANSWER


def _rows(outputs: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """What the members said to each row; at least one row, of nobody where there is none."""
    longest = max(map(len, outputs.values()), default=0)
    said = range(longest or 1)
    return [
        {model: rows[row] for model, rows in outputs.items() if row < len(rows) and rows[row] is not None}
        for row in said
    ]
