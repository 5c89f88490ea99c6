"""When each query was due, sent and answered: the facts that a report is made of. No clock, no Kafka.

Rules of this file:
- A latency runs from the *intended* send time to the moment the answer was read, so a query that was sent late
  because something stalled counts the stall (no coordinated omission).
- A query without an answer is late for ever: its latency is infinite, never left out.
- The first answer counts; a further one is a duplicate, whatever it says.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from clipper_loadgen.schedule import FloatArray


class Ledger:
    """Times of the queries of one run, in seconds of one clock.

    >>> ledger = Ledger([0.0, 1.0])
    >>> ledger.sent(0, began_s=2.4, now_s=2.5)
    >>> ledger.answered(0, 3.0, reason=None)
    True
    >>> ledger.latencies_s().tolist()
    [3.0, inf]

    Args:
        due_s: Intended send time of each query; in saturation mode NaN until the query is sent.
    """

    def __init__(self, due_s: Sequence[float]) -> None:
        self._due_s = list(due_s)
        self._sent_s = [math.nan] * len(due_s)
        self._answered_s = [math.inf] * len(due_s)
        self._reasons: dict[int, str] = {}
        self._duplicates: Counter[int] = Counter()
        self.sent_count = 0
        self.answered_count = 0

    def __len__(self) -> int:
        return len(self._due_s)

    @property
    def outstanding(self) -> int:
        """Queries that were sent and not answered."""
        return self.sent_count - self.answered_count

    def sent(self, query: int, *, began_s: float, now_s: float) -> None:
        """The query was handed to the producer. Queries are sent once, in order.

        Args:
            query: Index of the query.
            began_s: When handing it over began: the intended time of a query that had none.
            now_s: When it was done.
        """
        self._sent_s[query] = now_s
        if math.isnan(self._due_s[query]):
            self._due_s[query] = began_s
        self.sent_count += 1

    def answered(self, query: int, now_s: float, *, reason: str | None) -> bool:
        """An answer was read; False when the query had one already.

        Args:
            query: Index of the query.
            now_s: When it was read.
            reason: Why the default output was given; None for a prediction.
        """
        if self._answered_s[query] != math.inf:
            self._duplicates[query] += 1
            return False
        self._answered_s[query] = now_s
        self.answered_count += 1
        if reason is not None:
            self._reasons[query] = reason
        return True

    def latencies_s(self, first: int = 0) -> FloatArray:
        """From the intended send time to the answer, infinite without one, of the queries from `first` on."""
        latencies_s: FloatArray = np.array(self._answered_s[first:]) - np.nan_to_num(np.array(self._due_s[first:]))
        return latencies_s

    def due_times_s(self, first: int = 0) -> FloatArray:
        """When each query was meant to be sent; NaN in saturation mode for one that was not sent."""
        times: FloatArray = np.array(self._due_s[first:])
        return times

    def lateness_s(self, first: int = 0) -> FloatArray:
        """How late the sender itself was, of the queries that were sent."""
        late: FloatArray = np.array(self._sent_s[first:]) - np.array(self._due_s[first:])
        return late[~np.isnan(late)]

    def offered_per_s(self, first: int = 0) -> float | None:
        """Queries sent a second; None before two of them were sent at different times."""
        sent = np.array(self._sent_s[first:])
        sent = sent[~np.isnan(sent)]
        took_s = sent[-1] - sent[0] if len(sent) else 0.0
        return round(float((len(sent) - 1) / took_s), 1) if took_s > 0 else None

    def answer_times_s(self, first: int = 0) -> FloatArray:
        """When answers were read, ascending."""
        times: FloatArray = np.sort(np.array(self._answered_s[first:]))
        return times[: np.searchsorted(times, np.inf)]

    def reasons(self, first: int = 0) -> dict[str, int]:
        """Number of default answers by reason."""
        return dict(Counter(reason for query, reason in self._reasons.items() if query >= first).most_common())

    def duplicates(self, first: int = 0) -> int:
        """Number of answers beyond the first to a query."""
        return sum(count for query, count in self._duplicates.items() if query >= first)
