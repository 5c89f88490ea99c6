"""Identical rows in flight: asked once, answered to everybody who waits.

Rules of this file:
- The caller who gets True from `join` asks the model, and resolves the key when it answers, fails or is given up:
  memory is bounded by the rows that wait.
- A waiter joins a key at most once before the key is resolved: nothing here compares waiters.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
W = TypeVar("W")


class SingleFlight(Generic[K, W]):
    """The waiters of each key, for example (query, slot).

    >>> flight = SingleFlight[bytes, str]()
    >>> flight.join(b"row", "first"), flight.join(b"row", "second")
    (True, False)
    >>> flight.first(b"row")
    'first'
    >>> flight.resolve(b"row")
    ['first', 'second']
    >>> flight.resolve(b"row")
    []

    Source: the Go package golang.org/x/sync/singleflight.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[K, list[W]] = {}

    def __len__(self) -> int:
        """Number of keys in flight."""
        return len(self._waiting)

    def join(self, key: K, waiter: W) -> bool:
        """Wait for the key; True when nobody did before: the caller asks for it now."""
        waiters = self._waiting.get(key)
        if waiters is None:
            self._waiting[key] = [waiter]
            return True
        waiters.append(waiter)
        return False

    def first(self, key: K) -> W | None:
        """The waiter that joined first; None when nobody waits."""
        waiters = self._waiting.get(key)
        return waiters[0] if waiters else None

    def resolve(self, key: K) -> list[W]:
        """All waiters of the key, in the order they joined; the key is in flight no longer."""
        return self._waiting.pop(key, [])
