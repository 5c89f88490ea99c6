"""What went through an application lately, in seconds: a fold of predictions, audits and feedback, without Kafka.

Rules of this file:
- A second is that of the record's timestamp, which is the broker's; one in the future counts as now.
- A query that is read twice counts twice: routers answer a query again only after a crash, and then once.
- What is older than the longest window is forgotten, so that a view that runs for weeks stays as small as at first.
"""

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from clipper_topics.audit import Audit
from clipper_topics.prediction import Missing, MissingRow, ModelAnswer, Prediction

LONGEST_S = 60
"""Seconds kept: shares of the last minute are shown."""


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


@dataclass(slots=True)
class TrafficCounts:
    """What was counted of an application in so many seconds.

    Attributes:
        defaults: Default answers, by reason.
        latencies_ms: Of the answers, from the query's timestamp.
        stages_ms: Of the same, by stage: `wait` for the decision, `models`, and `record` until the broker had it.
        served: Queries that a version answered, alone or with others.
        asked: Queries for which a version was asked, for the log only too, and whether or not it answered.
        unanswered: Of these, the ones to which it did not answer in full, by reason (`late`, `error`).
        said: What a version said last when it failed.
        model_latencies_ms: Of a version's answers that came from no cache.
    """

    seconds: int = 0
    queries: int = 0
    defaults: Counter[str] = field(default_factory=Counter)
    latencies_ms: "array[float]" = field(default_factory=_floats)
    stages_ms: defaultdict[str, "array[float]"] = field(default_factory=lambda: defaultdict(_floats))
    served: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    unanswered: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    said: dict[str, str] = field(default_factory=dict)
    model_latencies_ms: defaultdict[str, "array[float]"] = field(default_factory=lambda: defaultdict(_floats))
    feedback: int = 0

    def add_answers(self, answers: Iterable[ModelAnswer], missing: Iterable[Missing]) -> None:
        """Count what versions said about one query, and versions that said nothing."""
        for answer in answers:
            ref = f"{answer.model}:{answer.version}"
            self.asked[ref] += 1
            if not answer.cached:
                self.model_latencies_ms[ref].append(answer.latency_ms)
            if answer.missing_rows:
                self._add_unanswered(ref, answer.missing_rows[0])
        for one in missing:
            ref = f"{one.model}:{one.version}"
            self.asked[ref] += 1
            self._add_unanswered(ref, one)

    def _add_unanswered(self, ref: str, missing: Missing | MissingRow) -> None:
        self.unanswered[ref][missing.reason] += 1
        if missing.reason == "error":
            self.said[ref] = missing.explanation

    def add(self, other: "TrafficCounts") -> None:
        """Count the other's seconds too."""
        self.queries += other.queries
        _count_in(self.defaults, other.defaults)
        self.latencies_ms.extend(other.latencies_ms)
        for stage, latencies in other.stages_ms.items():
            self.stages_ms[stage].extend(latencies)
        _count_in(self.served, other.served)
        _count_in(self.asked, other.asked)
        for ref, reasons in other.unanswered.items():
            _count_in(self.unanswered[ref], reasons)
        self.said |= other.said
        for ref, latencies in other.model_latencies_ms.items():
            self.model_latencies_ms[ref].extend(latencies)
        self.feedback += other.feedback


def _count_in(counts: Counter[str], other: Counter[str]) -> None:
    """Add counts, in a third of the time that `Counter.update` takes for few of them."""
    for key, count in other.items():
        counts[key] += count


class TrafficWindow:
    """Counts by application and second.

    Attributes:
        since_s: From when on everything was read, seconds since the epoch.

    >>> recent = TrafficWindow()
    >>> recent.predicted(Prediction(query_id="0-1", application="digits", latency_ms=12.0), at_s=99.5, now_s=100.0)
    >>> recent.window("digits", now_s=100.0, seconds=10).queries
    1
    """

    def __init__(self) -> None:
        self.since_s = 0.0
        self._seconds: defaultdict[str, dict[int, TrafficCounts]] = defaultdict(dict)

    def predicted(self, prediction: Prediction, at_s: float, now_s: float) -> None:
        """Take a prediction in, with its timestamp and the time now, seconds since the epoch."""
        if (counts := self._at(prediction.application, at_s, now_s)) is None:
            return
        counts.queries += 1
        counts.latencies_ms.append(prediction.latency_ms)
        in_models_ms = max((one.latency_ms for one in prediction.models), default=0.0)
        counts.stages_ms["wait"].append(max(0.0, prediction.latency_ms - in_models_ms))
        counts.stages_ms["models"].append(in_models_ms)
        if prediction.predicted_at_ms:
            counts.stages_ms["record"].append(max(0.0, at_s * 1000 - prediction.predicted_at_ms))
        if prediction.default:
            counts.defaults[prediction.reason or "unknown"] += 1
        else:
            counts.served.update(f"{one.model}:{one.version}" for one in prediction.models if one.served)
        counts.add_answers(prediction.models, prediction.missing)

    def audited(self, audit: Audit, at_s: float, now_s: float) -> None:
        """Take an audit in, with times as `predicted` does."""
        if (counts := self._at(audit.application, at_s, now_s)) is not None:
            counts.add_answers(audit.models, audit.missing)

    def fed_back(self, application: str, at_s: float, now_s: float) -> None:
        """Take a feedback record in, with times as `predicted` does."""
        if (counts := self._at(application, at_s, now_s)) is not None:
            counts.feedback += 1

    def window(self, application: str, now_s: float, seconds: int) -> TrafficCounts:
        """What was counted in the seconds before now: whole ones, of which everything was read; at most `LONGEST_S`."""
        end = int(now_s)
        begin = max(end - seconds, min(end, math.ceil(self.since_s)))
        counts = TrafficCounts(seconds=end - begin)
        for second, counted in self._seconds.get(application, {}).items():
            if begin <= second < end:
                counts.add(counted)
        return counts

    def forget(self, now_s: float) -> None:
        """Drop the seconds that no window reaches any more, and applications without any."""
        oldest = int(now_s) - LONGEST_S
        for application, seconds in list(self._seconds.items()):
            for second in [second for second in seconds if second < oldest]:
                del seconds[second]
            if not seconds:
                del self._seconds[application]

    def _at(self, application: str, at_s: float, now_s: float) -> TrafficCounts | None:
        second = int(min(at_s, now_s))
        if second < int(now_s) - LONGEST_S:
            return None
        return self._seconds[application].setdefault(second, TrafficCounts())
