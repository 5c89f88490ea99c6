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

from clipper_loadgen.draws import FloatArray


class Ledger:
    """Times of the queries of one run, in seconds of one clock.

    >>> ledger = Ledger([0.0, 1.0])
    >>> ledger.sent(0, began_s=2.4, now_s=2.5)
    >>> ledger.answered(0, 3.0, reason=None)
    True
    >>> ledger.latencies_s().tolist()
    [3.0, inf]

    Attributes:
        due_s: When each query was meant to be sent.
        sent_s: When it was handed to the producer; NaN before.
        answered_s: When its first answer was read; infinite before.
        reasons: Why the default output was given, by query.
        duplicates: Answers beyond the first, by query.
    """

    def __init__(self, due_s: Sequence[float]) -> None:
        self.due_s = list(due_s)
        self.sent_s = [math.nan] * len(due_s)
        self.answered_s = [math.inf] * len(due_s)
        self.reasons: dict[int, str] = {}
        self.duplicates: Counter[int] = Counter()
        self.sent_count = 0
        self.answered_count = 0

    def __len__(self) -> int:
        return len(self.due_s)

    def sent(self, query: int, *, began_s: float, now_s: float) -> None:
        """The query was handed to the producer, which began at the intended time of one that had none.

        Queries are sent once, in order.
        """
        self.sent_s[query] = now_s
        if math.isnan(self.due_s[query]):
            self.due_s[query] = began_s
        self.sent_count += 1

    def answered(self, query: int, now_s: float, *, reason: str | None) -> bool:
        """An answer was read; False when the query had one already. A `reason` says why it is the default output."""
        if self.answered_s[query] != math.inf:
            self.duplicates[query] += 1
            return False
        self.answered_s[query] = now_s
        self.answered_count += 1
        if reason is not None:
            self.reasons[query] = reason
        return True

    def latencies_s(self, first: int = 0) -> FloatArray:
        """From the intended send time to the answer, infinite without one, of the queries from `first` on."""
        latencies_s: FloatArray = np.array(self.answered_s[first:]) - np.nan_to_num(np.array(self.due_s[first:]))
        return latencies_s
