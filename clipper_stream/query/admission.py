"""Which application may have another query wait for its models, when several share a router.

One application whose models hang must not take the room of the others. Alone it may take all there is, because then
nobody else is kept waiting when the router stops reading.
"""

from collections import Counter

COMMON_RATIO = 0.75
"""Of all places: taken by whoever comes first. The rest is for applications that have less than an even share."""
MOST_DEFERRED = 1_000_000
"""Some hundred bytes each; beyond it a backlog of one application holds up the others."""
UNBOUNDED = 1 << 62


class Admission:
    """Counts the queries and audits that wait for models, by application, and bounds them.

    Attributes:
        most: How many wait at a time.
        shared: Whether there are several applications.
        deferred: How many queries wait to be read again.

    >>> admission = Admission(8)
    >>> admission.shared = True
    >>> admission.enter("hangs", admission.room("hangs")); admission.room("hangs"), admission.room("well")
    (0, 4)
    """

    def __init__(self, most: int = UNBOUNDED) -> None:
        self.most, self.shared, self.deferred = most, False, 0
        self._waiting: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        return self._waiting.total()

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be read; where there are several applications each has a bound of its own."""
        return self.waiting >= (2 if self.shared else 1) * self.most or self.deferred >= MOST_DEFERRED

    def room(self, application: str) -> int:
        """How many more queries of an application may wait."""
        if not self.shared:
            return UNBOUNDED
        own = self._waiting.get(application, 0)
        even = self.most // max(2, len(self._waiting) + (own == 0))
        return max(0, int(COMMON_RATIO * self.most) - self.waiting, even - own)

    def enter(self, application: str, count: int) -> None:
        """Count queries that wait from now on; an application of which none does has no share."""
        if count:
            self._waiting[application] += count

    def leave(self, application: str, count: int = 1) -> None:
        self._waiting[application] -= count
        if not self._waiting[application]:
            del self._waiting[application]

    def clear(self) -> None:
        self._waiting.clear()
