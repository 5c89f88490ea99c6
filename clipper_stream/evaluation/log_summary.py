"""The first ways through a log: what it holds, before anything is estimated.

Rules of this file:
- Decisions whose feedback may still come are left out of everything that follows, whoever was served; so are those
  whose application named the models (`usable`).
- Every chunk is brought to the models of the whole log, so that sums of chunks can be added.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.estimators.block_sums import plus
from clipper_stream.evaluation.estimators.censored_feedback import Censored, Delays, mature
from clipper_stream.evaluation.estimators.outcome_model import OutcomeSums
from clipper_stream.evaluation.estimators.propensity_matrices import choices_of
from clipper_stream.evaluation.log.columns import DecisionColumns, Floats
from clipper_stream.evaluation.log.known_losses import by_policy
from clipper_stream.evaluation.question import Log, Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The time of a log, cut into spans of equal length.

    Attributes:
        since_ms: Its beginning, milliseconds since the epoch.
    """

    since_ms: int
    until_ms: int
    spans: int

    @property
    def middles(self) -> tuple[int, ...]:
        """Of each span, milliseconds since the epoch."""
        step = (self.until_ms - self.since_ms) / self.spans
        return tuple(int(self.since_ms + step * (number + 0.5)) for number in range(self.spans))

    def span_of(self, at_ms: np.ndarray) -> np.ndarray:
        length = max(1, self.until_ms - self.since_ms)
        found: np.ndarray = np.clip((at_ms - self.since_ms) * self.spans // length, 0, self.spans - 1)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOutline:
    """Names and times of a log.

    Attributes:
        now_ms: The last that was heard of anything, milliseconds since the epoch.
    """

    models: tuple[str, ...]
    policies: tuple[str, ...]
    contexts: tuple[str | None, ...]
    largest_contexts: tuple[str | None, ...]
    decisions: int
    timeline: Timeline
    now_ms: int

    def whole(self, columns: DecisionColumns) -> DecisionColumns:
        """The decisions of a chunk with the models and contexts of the whole log."""
        return columns.of_models(self.models).of_contexts(self.contexts)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """What a log holds: models, censoring and predicted losses.

    Attributes:
        predictions: Predicted losses of the models, as of `OutcomeSums.table`.
        at_bound: Answers whose loss is the largest that there is, though a model gave them.
    """

    outline: LogOutline
    maturity_ms: int
    censored: Censored
    predictions: Floats
    used: int
    at_bound: int

    def usable(self, log: Log) -> Iterator[DecisionColumns]:
        """The log's decisions that are old enough, with the models and contexts of all of it."""
        for columns in log():
            yield usable(self.outline.whole(columns), self.outline.now_ms, self.maturity_ms)


def summarize_log(log: Log, question: Question) -> LogSummary:
    """Go through the log for its names and times, its delays, and its losses."""
    found = outline_log(log, question)
    contexts, now_ms = len(found.contexts), found.now_ms
    maturity_ms = reduce(Delays.merged, (Delays.of(columns, now_ms) for columns in log())).maturity_ms()
    censored: Censored | None = None
    outcomes: OutcomeSums | None = None
    used = at_bound = 0
    for columns in log():
        whole = found.whole(columns)
        span = found.timeline.span_of(whole.at_ms)
        censored = plus(censored, Censored.of(whole, now_ms, maturity_ms, span, found.timeline.spans))
        old = usable(whole, now_ms, maturity_ms)
        choices = choices_of(old, anybody(old))
        outcomes = plus(outcomes, OutcomeSums.of(choices, contexts))
        used += len(choices)
        at_bound += int(((old.answer_loss >= 1.0) & ~old.default).sum())
    if not used or censored is None or outcomes is None:
        raise InvalidSetting(
            f"{found.decisions} decisions, none with feedback that is old enough: nothing can be estimated. Take a "
            "range that ends before the feedback of its last decisions has come, or send feedback"
        )
    return LogSummary(
        outline=found,
        maturity_ms=maturity_ms,
        censored=censored,
        predictions=outcomes.table(),
        used=used,
        at_bound=at_bound,
    )


def outline_log(log: Log, question: Question) -> LogOutline:
    """Names and times; arguments as of `summarize_log`."""
    models, policies, contexts = dict[str, None](), dict[str, None](), Counter[str | None]()
    decisions, first_ms, last_ms, now_ms = 0, [], [], []
    for columns in log():
        if not len(columns):
            continue
        models.update(dict.fromkeys(columns.models))
        policies.update(dict.fromkeys(columns.policies))
        counts = np.bincount(columns.context, minlength=len(columns.contexts))
        contexts.update(dict(zip(columns.contexts, counts.tolist(), strict=True)))
        decisions += len(columns)
        first_ms.append(int(columns.at_ms.min()))
        last_ms.append(int(columns.at_ms.max()))
        now_ms.append(int(columns.feedback_at_ms.max()))
    if not decisions:
        raise InvalidSetting("no decisions: take another range, or another application")
    return LogOutline(
        models=tuple(models),
        policies=tuple(policies),
        contexts=tuple(contexts),
        largest_contexts=tuple(name for name, count in contexts.most_common(question.contexts) if count),
        decisions=decisions,
        timeline=Timeline(since_ms=min(first_ms), until_ms=max(last_ms), spans=question.spans),
        now_ms=max(*last_ms, *now_ms),
    )


def usable(columns: DecisionColumns, now_ms: int, maturity_ms: int) -> DecisionColumns:
    """Decisions that are old enough and that a policy made."""
    kept = mature(columns, now_ms, maturity_ms) & by_policy(columns)
    return columns if kept.all() else columns.take(kept)


def anybody(columns: DecisionColumns) -> Floats:
    """A target that chooses all models alike, for sums that no candidate is in."""
    return np.full((len(columns), len(columns.models)), 1.0 / max(1, len(columns.models)))
