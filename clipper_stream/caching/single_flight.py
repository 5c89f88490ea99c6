"""Identical rows in flight: asked once, answered to everybody who waits.

Rules of this file:
- Who gets True from `join` asks the model, and resolves the key when it answers, fails or is given up.
- Waiters of a key are a dict, for its order and its lookup: one query may have a hundred thousand identical rows.
- Who stops waiting leaves. A key that nobody waits for is forgotten, so that a request lost on the way delays no later
  query, and memory is bounded by the queries that wait.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
W = TypeVar("W", bound=Hashable)


class SingleFlight(Generic[K, W]):
    """Who waits for which key. Waiters are unique within a key, for example (query id, row).

    >>> flight = SingleFlight[bytes, str]()
    >>> flight.join(b"row", "first"), flight.join(b"row", "second")
    (True, False)
    >>> flight.first(b"row")
    'first'
    >>> flight.resolve(b"row")
    ['first', 'second']
    >>> flight.resolve(b"row")
    []
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[K, dict[W, None]] = {}

    def __len__(self) -> int:
        """Keys in flight."""
        return len(self._waiting)

    def __contains__(self, key: K) -> bool:
        """Whether somebody waits for the key."""
        return key in self._waiting

    def join(self, key: K, waiter: W) -> bool:
        """Wait for the key; True when nobody did before: ask for it now."""
        waiters = self._waiting.get(key)
        if waiters is None:
            self._waiting[key] = {waiter: None}
            return True
        waiters[waiter] = None
        return False

    def first(self, key: K) -> W | None:
        """Who of those that wait joined first; None when nobody waits."""
        waiters = self._waiting.get(key)
        return next(iter(waiters)) if waiters else None

    def leave(self, key: K, waiter: W) -> None:
        """Wait no longer, for example at the query's deadline. No error when the waiter does not wait."""
        waiters = self._waiting.get(key)
        if waiters is None or waiter not in waiters:
            return
        del waiters[waiter]
        if not waiters:
            del self._waiting[key]

    def resolve(self, key: K) -> list[W]:
        """Everybody who waited for the key, in the order they joined; the key is in flight no longer."""
        return [*self._waiting.pop(key, ())]
