"""What a run showed, as plain numbers.

Rules of this file:
- A percentile is a latency that was measured (numpy's `higher`), not one between two. It is null where it falls on a
  query without an answer.
- Beside a throughput stand the defaults: a pipeline that answers nothing by a model is fast.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipper_loadgen.draws import FloatArray
from clipper_loadgen.ledger import Ledger

PERCENTILES = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p99.9_ms": 99.9, "max_ms": 100.0}
LATE_SHARE = 0.2
"""A sender later than this share of the median latency is worth a warning."""
STEADY = (0.05, 0.95)
"""Throughput is measured between these shares of the answers, so without the start and the tail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """The result of one run; but for counts that say so, warm-up queries are not in it."""

    application: str
    mode: str
    queries: int
    """Sent."""
    answered: int
    missing: int
    """Sent and not answered."""
    duplicates: int
    """Answers beyond the first to a query."""
    offered_per_s: float | None
    throughput_per_s: float | None
    """Answers a second between the 5 % and the 95 % mark; None with too few answers."""
    latency: dict[str, float | None]
    """Percentiles in milliseconds from the intended send time; in `saturation` mode from the actual one, and then
    mostly the wait behind the other outstanding queries."""
    default_ratio: float
    """Share of the answers that are default outputs."""
    defaults: dict[str, int]
    """Default answers by reason."""
    late_p99_ms: float | None
    """How late the sender itself was. Not small against p50: the generator or the machine was the limit."""
    send_failures: int = 0
    """Batches that could not be written."""
    send_failure: str | None = None
    """The first such failure in words."""
    distinct_inputs: int = 0
    """Different inputs among all queries, with the warm-up."""
    feedback_sent: int = 0
    """With the warm-up."""
    feedback_pending: int = 0
    """Answered queries whose feedback was not due when the run ended."""
    generator_cpu_us: float | None = None
    """CPU of this process a query, in microseconds, from the first query to the last answer."""
    generator_cpu_ratio: float | None = None
    """The same as a share of one CPU."""
    encoding: str = "json"
    seed: int = 0

    def lines(self) -> Iterator[str]:
        found = [
            ("queries sent", f"{self.queries:,}"),
            ("answered", f"{self.answered:,}"),
            ("missing", f"{self.missing:,}"),
            ("duplicate answers", f"{self.duplicates:,}"),
            ("offered", _with_unit(self.offered_per_s, ",.1f", "/s")),
            ("throughput, 5 % to 95 %", _with_unit(self.throughput_per_s, ",.1f", "/s")),
            *(
                (f"latency {name.removesuffix('_ms')}", _with_unit(ms, ",.2f", "ms"))
                for name, ms in self.latency.items()
            ),
            ("default outputs", f"{self.default_ratio:.2%}"),
            *((f"  {reason}", f"{count:,}") for reason, count in self.defaults.items()),
            ("distinct inputs", f"{self.distinct_inputs:,}"),
            ("feedback sent", f"{self.feedback_sent:,}"),
            ("feedback not due yet", f"{self.feedback_pending:,}"),
            ("sender late p99", _with_unit(self.late_p99_ms, ",.2f", "ms")),
            ("generator CPU a query", _with_unit(self.generator_cpu_us, ",.0f", "\N{MICRO SIGN}s")),
        ]
        yield f"{self.application}, {self.mode}"
        yield from (f"{name:<24}{value:>14}" for name, value in found)

    def warnings(self) -> Iterator[str]:
        """What makes the numbers doubtful, in sentences."""
        median_ms, late_ms = self.latency["p50_ms"], self.late_p99_ms
        if self.mode == "rate" and median_ms and late_ms and late_ms > LATE_SHARE * median_ms:
            yield f"the generator was up to {late_ms} ms late (p99): it or the machine was part of the latency"
        if self.send_failures:
            yield f"{self.send_failures} batches could not be written, the first: {self.send_failure}"
        if self.missing:
            yield f"{self.missing} queries had no answer; percentiles that fall on them are empty"


def _with_unit(value: float | None, form: str, unit: str) -> str:
    return "-" if value is None else f"{value:{form}} {unit}"


def percentiles_ms(latencies_s: FloatArray) -> dict[str, float | None]:
    """The percentiles in `PERCENTILES`; a lost query, an infinite latency, is late for ever.

    >>> percentiles_ms(np.array([0.001, 0.002, np.inf]))["p50_ms"], percentiles_ms(np.array([np.inf]))["max_ms"]
    (2.0, None)
    """
    return {name: percentile_ms(latencies_s, share) for name, share in PERCENTILES.items()}


def percentile_ms(values_s: FloatArray, share: float) -> float | None:
    """One percentile in milliseconds; None without values, or where it falls on a query without an answer."""
    if not len(values_s):
        return None
    found = float(np.percentile(values_s, share, method="higher"))
    return round(found * 1e3, 3) if math.isfinite(found) else None


def steady_rate_per_s(times_s: FloatArray) -> float | None:
    """Events a second between the 5 % and the 95 % mark; None where the two marks are at one time."""
    if not len(times_s):
        return None
    first, last = (int(share * (len(times_s) - 1)) for share in STEADY)
    took_s = times_s[last] - times_s[first]
    return round(float((last - first) / took_s), 1) if took_s > 0 else None


def summarise(ledger: Ledger, *, application: str, mode: str, first: int = 0, **further: Any) -> LoadReport:
    """The report on the queries from `first`, the first one after the warm-up, on; `further` is not in the ledger."""
    sent_s, late_s = np.array(ledger.sent_s[first:]), np.array(ledger.sent_s[first:]) - np.array(ledger.due_s[first:])
    sent_s, late_s = sent_s[~np.isnan(sent_s)], late_s[~np.isnan(late_s)]
    sent, took_s = len(sent_s), sent_s[-1] - sent_s[0] if len(sent_s) else 0.0
    answered_s = np.sort(ledger.answered_s[first:])
    answered_s = answered_s[np.isfinite(answered_s)]
    reasons = Counter(reason for query, reason in ledger.reasons.items() if query >= first)
    return LoadReport(
        application=application,
        mode=mode,
        queries=sent,
        answered=len(answered_s),
        missing=sent - len(answered_s),
        duplicates=sum(count for query, count in ledger.duplicates.items() if query >= first),
        offered_per_s=round(float((sent - 1) / took_s), 1) if took_s > 0 else None,
        throughput_per_s=steady_rate_per_s(answered_s),
        latency=percentiles_ms(ledger.latencies_s(first)[:sent]),
        default_ratio=round(reasons.total() / max(1, len(answered_s)), 6),
        defaults=dict(reasons.most_common()),
        late_p99_ms=percentile_ms(late_s, 99.0),
        **further,
    )
