"""A cache store in memory."""

from collections.abc import Iterable, Sequence


class DictStore:
    """Keeps cache entries in a dictionary: for the library without a table, and the reference for stores on disk.

    >>> store = DictStore()
    >>> store.write(puts=[(b"a", b"1"), (b"b", b"2")], deletes=[])
    >>> store.write(puts=[], deletes=[b"a", b"missing"])
    >>> store.get_many([b"b", b"a"])
    [b'2', None]
    """

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._entries = dict(entries)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, in order; None where there is none."""
        return [self._entries.get(key) for key in keys]

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        """Put entries and delete keys; a key that is not there is no error."""
        self._entries.update(puts)
        for key in deletes:
            self._entries.pop(key, None)

    def items(self) -> list[tuple[bytes, bytes]]:
        """Every entry."""
        return list(self._entries.items())
