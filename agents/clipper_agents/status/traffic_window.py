"""What went through an application lately, in seconds: a fold of predictions, audits and feedback, without Kafka.

Rules of this file:
- A second is that of the record's timestamp, which is the broker's; one in the future counts as now.
- A query that is read twice counts twice: routers answer a query again only after a crash, and then once.
- What is older than the longest window is forgotten, so that a view that runs for weeks stays as small as at first.
"""

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from clipper_topics.audit import Audit
from clipper_topics.prediction import Missing, MissingRow, ModelAnswer, Prediction

WINDOW_S, LONGEST_S = 10, 60
"""Seconds of the figures: long enough for a p99, short enough to see a change; longer where there are few queries."""
LEAST_ASKED = 20
"""Queries from which on something is said of answers."""


def quantile(q: float, values: Sequence[float]) -> float | None:
    """The smallest value that at least the share q of them does not exceed; None of none.

    >>> quantile(0.5, [4.0, 1.0, 3.0]), quantile(0.99, [])
    (3.0, None)

    Source: Hyndman and Fan, "Sample quantiles in statistical packages", Am. Stat. 50, 1996, definition 1.
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)] if ordered else None


def _floats() -> "array[float]":
    return array("d")


def _weights() -> defaultdict[str, float]:
    return defaultdict(float)


@dataclass(slots=True)
class VersionCounts:
    """What was counted of one version.

    Attributes:
        asked: Queries for which it was asked, for the log only too, and whether or not it answered.
        answered: Of these, the ones to which it answered, in full or in part, and `cached` those that a cache answered.
        served: Queries that it answered, alone or with others, with more than the log.
        unanswered: Queries to which it did not answer in full, by reason (`late`, `error`).
        said: What it said last when it failed.
        latencies_ms: Of its answers that came from no cache.
    """

    asked: float = 0
    answered: float = 0
    cached: float = 0
    served: float = 0
    unanswered: defaultdict[str, float] = field(default_factory=_weights)
    said: str = ""
    latencies_ms: "array[float]" = field(default_factory=_floats)

    def add_answer(self, answer: ModelAnswer, weight: float, *, served: bool) -> None:
        """Count what it said about one query."""
        self.asked += weight
        self.answered += weight
        if served:
            self.served += weight
        if answer.cached:
            self.cached += weight
        else:
            self.latencies_ms.append(answer.latency_ms)
        if answer.missing_rows:
            self.add_missing(answer.missing_rows[0], weight)

    def add_missing(self, missing: Missing | MissingRow, weight: float) -> None:
        """Count why it did not answer in full."""
        self.unanswered[missing.reason] += weight
        if missing.reason == "error":
            self.said = missing.explanation

    def add(self, other: "VersionCounts") -> None:
        """Count a later second too."""
        self.asked += other.asked
        self.answered += other.answered
        self.cached += other.cached
        self.served += other.served
        for reason, weight in other.unanswered.items():
            self.unanswered[reason] += weight
        self.said = other.said or self.said
        self.latencies_ms.extend(other.latencies_ms)


@dataclass(slots=True)
class TrafficCounts:
    """What was counted of an application in so many seconds; whole numbers where everything was read.

    Attributes:
        sampled: Whether records stand for others too, which were not read.
        defaults: Default answers, by reason.
        latencies_ms: Of the answers that were read, from the query's timestamp.
        stages_ms: Of the same, by stage: `wait` for the decision, `models`, and `record` until the broker had it.
        versions: What was counted of each version.
    """

    seconds: int = 0
    sampled: bool = False
    queries: float = 0
    defaults: defaultdict[str, float] = field(default_factory=_weights)
    latencies_ms: "array[float]" = field(default_factory=_floats)
    stages_ms: defaultdict[str, "array[float]"] = field(default_factory=lambda: defaultdict(_floats))
    versions: defaultdict[str, VersionCounts] = field(default_factory=lambda: defaultdict(VersionCounts))
    feedback: float = 0

    def of(self, ref: str) -> VersionCounts:
        """What was counted of a version, which may be nothing."""
        return self.versions[ref] if ref in self.versions else VersionCounts()

    def add_answers(
        self, answers: Iterable[ModelAnswer], missing: Iterable[Missing], weight: float, *, served: bool
    ) -> None:
        """Count what versions said about one query, and versions that said nothing."""
        for answer in answers:
            version = self.versions[f"{answer.model}:{answer.version}"]
            version.add_answer(answer, weight, served=served and answer.served)
        for one in missing:
            version = self.versions[f"{one.model}:{one.version}"]
            version.asked += weight
            version.add_missing(one, weight)

    def add(self, other: "TrafficCounts") -> None:
        """Count a later second too."""
        self.sampled |= other.sampled
        self.queries += other.queries
        self.feedback += other.feedback
        for reason, weight in other.defaults.items():
            self.defaults[reason] += weight
        self.latencies_ms.extend(other.latencies_ms)
        for stage, samples in other.stages_ms.items():
            self.stages_ms[stage].extend(samples)
        for ref, counts in other.versions.items():
            self.versions[ref].add(counts)


class TrafficWindow:
    """Counts by application and second.

    Attributes:
        since_s: From when on everything was read, seconds since the epoch.
        until_s: Until when; a window ends there at the latest.

    >>> recent = TrafficWindow()
    >>> recent.predicted(Prediction(query_id="0-1", application="digits", latency_ms=12.0), at_s=99.5, now_s=100.0)
    >>> recent.window("digits", now_s=100.0, seconds=10).queries
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
        counts.queries += weight
        counts.latencies_ms.append(prediction.latency_ms)
        if prediction.models or not prediction.missing:  # else it is not known how long it waited before it asked them
            in_models_ms = max([one.latency_ms for one in prediction.models], default=0.0)
            counts.stages_ms["wait"].append(max(0.0, prediction.latency_ms - in_models_ms))
            counts.stages_ms["models"].append(in_models_ms)
        if prediction.predicted_at_ms:
            counts.stages_ms["record"].append(max(0.0, at_s * 1000 - prediction.predicted_at_ms))
        if prediction.default:
            counts.defaults[prediction.reason or "unknown"] += weight
        counts.add_answers(prediction.models, prediction.missing, weight, served=not prediction.default)

    def audited(self, audit: Audit, at_s: float, now_s: float, weight: float = 1.0) -> None:
        """Take an audit in, with times and weight as `predicted` does."""
        if (counts := self._at(audit.application, at_s, now_s, weight)) is not None:
            counts.add_answers(audit.models, audit.missing, weight, served=False)

    def fed_back(self, application: str, at_s: float, now_s: float, weight: float = 1.0) -> None:
        """Take a feedback record in, with times and weight as `predicted` does."""
        if (counts := self._at(application, at_s, now_s, weight)) is not None:
            counts.feedback += weight

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
