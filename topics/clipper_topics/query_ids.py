"""Ids that this project makes for queries; they name the query's partition, so that feedback needs no key.

Rules of this file:
- Two forms name a partition: `<partition>@<offset>`, which routers give to queries without an id, and `<partition>-`
  with 32 hexadecimal digits, which the client mints. Any other id is an application's own and names none.
- No query may claim an id of the first form (`check_query`): who guesses an offset would have the answer of the next
  query that comes without an id.
"""

import hashlib
import itertools
import os
import re

OFFSET_ID_PATTERN = r"^[0-9]+@[0-9]+$(?!\n)"
"""Ids of the first form."""
_GIVEN = re.compile(OFFSET_ID_PATTERN)
PARTITION_PATTERN = r"([0-9]{1,5})(?:@[0-9]+|-[0-9a-f]{32})"
"""The whole of an id that names a partition, which is its group."""
_NAMES_PARTITION = re.compile(PARTITION_PATTERN)


def minted_id(partition: int) -> str:
    """A new id for a query that will be produced to this partition.

    >>> minted_id(3).startswith("3-")
    True
    """
    return f"{partition}-{random_hex()}"


_count = itertools.count()
_secret = os.urandom(32)


def _draw_secret() -> None:
    global _secret  # noqa: PLW0603 - of a process, as the count is
    _secret = os.urandom(32)


os.register_at_fork(after_in_child=_draw_secret)


def random_hex() -> str:
    """Return 32 hexadecimal digits that nobody can guess and no other call returns.

    A keyed digest of a count: asking the system for random bytes takes several times as long.

    >>> len(random_hex()), random_hex() == random_hex()
    (32, False)
    """
    return hashlib.blake2b(b"%d" % next(_count), digest_size=16, key=_secret).hexdigest()


def offset_id(partition: int, offset: int) -> str:
    """The id of a query that came without one: the same at each redelivery.

    >>> offset_id(3, 41)
    '3@41'
    """
    return f"{partition}@{offset}"


def is_offset_id(query_id: str) -> bool:
    """Whether an id has the form of those that routers give: no application may choose it.

    >>> is_offset_id("3@41"), is_offset_id("ada@home")
    (True, False)
    """
    return "@" in query_id and _GIVEN.fullmatch(query_id) is not None


def answered_id(query_id: str | None, partition: int, offset: int) -> str:
    """The id under which a query is answered: its own, unless it has none that it may choose.

    >>> answered_id("order 7", 3, 41), answered_id(None, 3, 41), answered_id("2@17", 3, 41)
    ('order 7', '3@41', '3@41')
    """
    return offset_id(partition, offset) if not query_id or is_offset_id(query_id) else query_id


def partition_of(query_id: str) -> int | None:
    """The partition that an id names, None for an id of the application's own making.

    >>> partition_of("3@41"), partition_of("3-9f86d081884c7d659a2feaa0c55ad015"), partition_of("3-41")
    (3, 3, None)
    """
    named = _NAMES_PARTITION.fullmatch(query_id)
    return None if named is None else int(named[1])
