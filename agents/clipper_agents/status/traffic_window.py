"""What went through an application lately, in seconds: a fold of predictions, audits and feedback, without Kafka.

Rules of this file:
- A second is that of the record's timestamp, which is the broker's; one in the future counts as now.
- A query that is read twice counts twice: routers answer a query again only after a crash, and then once.
- What is older than the longest window is forgotten, so that a view that runs for weeks stays as small as at first.
"""

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TypeAlias

from clipper_stream.selection.confidence import confidence_bin
from clipper_topics.audit import Audit
from clipper_topics.prediction import Missing, MissingRow, ModelAnswer, Prediction

WINDOW_S, LONGEST_S = 10, 60
"""Seconds of the figures: long enough for a p99, short enough to see a change; longer where there are few queries."""
LEAST_ASKED = 20
"""Queries from which on something is said of answers."""
Figure: TypeAlias = tuple[str, ...]
"""What is counted, and of whom."""


@dataclass(slots=True)
class TrafficCounts:
    """What was counted of an application in so many seconds; whole numbers where everything was read.

    Attributes:
        sampled: Whether records stand for others too, which were not read.
        amounts: `("queries",)` and `("feedback",)`; default answers by `("default", reason)`; and by version, `ref`:
            queries for which it was asked, for the log only too, `("asked", ref)`; those to which it answered, in full
            or in part, `("answered", ref)`, a cache `("cached", ref)`, with more than the log `("served", ref)`, and
            with a confidence in a bin `("confidence", ref, bin)`; and those to which it did not answer in full,
            `("unanswered", ref, reason)`.
        samples_ms: Latencies of the answers that were read, from the query's timestamp, `("answers",)`; their stages,
            `("stage", name)`: `wait` for the decision, `models`, and `record` until the broker had it; and of a version
            its answers that came from no cache, `("version", ref)`.
        said: What a version said last when it failed.
    """

    seconds: int = 0
    sampled: bool = False
    amounts: defaultdict[Figure, float] = field(default_factory=lambda: defaultdict(float))
    samples_ms: defaultdict[Figure, "array[float]"] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    said: dict[str, str] = field(default_factory=dict)

    def by(self, *what: str) -> dict[str, int]:
        """Amounts by the last part of their key, as whole numbers, the largest first."""
        found = {key[-1]: round(count) for key, count in self.amounts.items() if key[:-1] == what}
        return dict(sorted(found.items(), key=itemgetter(1), reverse=True))

    def add_answers(
        self, answers: Iterable[ModelAnswer], missing: Iterable[Missing], weight: float, *, served: bool
    ) -> None:
        """Count what versions said about one query, and versions that said nothing."""
        amounts = self.amounts
        for answer in answers:
            ref = f"{answer.model}:{answer.version}"
            amounts["asked", ref] += weight
            amounts["answered", ref] += weight
            amounts["served", ref] += weight * (served and answer.served)
            amounts["cached", ref] += weight * answer.cached
            if answer.confidence is not None:
                amounts["confidence", ref, str(confidence_bin(answer.confidence))] += weight
            if not answer.cached:
                self.samples_ms["version", ref].append(answer.latency_ms)
            self._add_missing(ref, answer.missing_rows[:1], weight)
        for one in missing:
            ref = f"{one.model}:{one.version}"
            amounts["asked", ref] += weight
            self._add_missing(ref, [one], weight)

    def _add_missing(self, ref: str, missing: Iterable[Missing | MissingRow], weight: float) -> None:
        for one in missing:
            self.amounts["unanswered", ref, one.reason] += weight
            if one.reason == "error":
                self.said[ref] = one.explanation

    def add(self, other: "TrafficCounts") -> None:
        """Count a later second too."""
        self.sampled |= other.sampled
        self.said |= other.said
        for figure, amount in other.amounts.items():
            self.amounts[figure] += amount
        for figure, samples in other.samples_ms.items():
            self.samples_ms[figure].extend(samples)


class TrafficWindow:
    """Counts by application and second.

    Attributes:
        since_s: From when on everything was read, seconds since the epoch.
        until_s: Until when; a window ends there at the latest.

    >>> recent = TrafficWindow()
    >>> recent.predicted(Prediction(query_id="0-1", application="digits", latency_ms=12.0), at_s=99.5, now_s=100.0)
    >>> recent.window("digits", now_s=100.0, seconds=10).amounts["queries",]
    1.0
    """

    def __init__(self) -> None:
        self.since_s, self.until_s = 0.0, math.inf
        self._seconds: defaultdict[str, dict[int, TrafficCounts]] = defaultdict(dict)
        self._oldest = 0

    def predicted(self, prediction: Prediction, at_s: float, now_s: float, weight: float = 1.0) -> None:
        """Take a prediction in, with its timestamp and the time now, seconds since the epoch.

        One of a sample stands for `weight` predictions.
        """
        if (counts := self._at(prediction.application, at_s, now_s, weight)) is None:
            return
        counts.amounts["queries",] += weight
        counts.samples_ms["answers",].append(prediction.latency_ms)
        if prediction.models or not prediction.missing:  # else it is not known how long it waited before it asked them
            in_models_ms = max([one.latency_ms for one in prediction.models], default=0.0)
            counts.samples_ms["stage", "wait"].append(max(0.0, prediction.latency_ms - in_models_ms))
            counts.samples_ms["stage", "models"].append(in_models_ms)
        if prediction.predicted_at_ms:
            counts.samples_ms["stage", "record"].append(max(0.0, at_s * 1000 - prediction.predicted_at_ms))
        if prediction.default:
            counts.amounts["default", prediction.reason or "unknown"] += weight
        counts.add_answers(prediction.models, prediction.missing, weight, served=not prediction.default)

    def audited(self, audit: Audit, at_s: float, now_s: float, weight: float = 1.0) -> None:
        """Take an audit in, with times and weight as `predicted` does."""
        if (counts := self._at(audit.application, at_s, now_s, weight)) is not None:
            counts.add_answers(audit.models, audit.missing, weight, served=False)

    def fed_back(self, application: str, at_s: float, now_s: float, weight: float = 1.0) -> None:
        """Take a feedback record in, with times and weight as `predicted` does."""
        if (counts := self._at(application, at_s, now_s, weight)) is not None:
            counts.amounts["feedback",] += weight

    def window(self, application: str, now_s: float, seconds: int) -> TrafficCounts:
        """What was counted in the seconds before now: whole ones, of which everything was read; at most `LONGEST_S`."""
        end = int(min(now_s, self.until_s))
        begin = max(end - seconds, min(end, math.ceil(self.since_s)))
        found, counts = self._seconds.get(application, {}), TrafficCounts(seconds=end - begin)
        for second in range(begin, end):
            if second in found:
                counts.add(found[second])
        return counts

    def forget(self, now_s: float) -> None:
        """Drop the seconds that no window reaches any more, and applications without any."""
        oldest = int(now_s) - LONGEST_S
        if oldest == self._oldest:
            return
        self._oldest = oldest
        for application, seconds in list(self._seconds.items()):
            for second in [second for second in seconds if second < oldest]:
                del seconds[second]
            if not seconds:
                del self._seconds[application]

    def _at(self, application: str, at_s: float, now_s: float, weight: float) -> TrafficCounts | None:
        second = int(min(at_s, now_s))
        if second < int(now_s) - LONGEST_S:
            return None
        seconds = self._seconds[application]
        if (counts := seconds.get(second)) is None:
            counts = seconds[second] = TrafficCounts()
        counts.sampled |= weight > 1
        return counts
