"""The state of a query: one byte in a column of its batch, and one table of what may follow what.

    READ -- WAITING --+-- ANSWERED --+
      |               |-- DEFAULTED -+-- RECORDED -- ACKNOWLEDGED
      |-- DEFAULTED   '-- NOTED -----+                  |
      |-- NOTED                                         |
      |-- KNOWN, REPEATED ------------------------------+
      '-- DEFERRED                      read again when there is room

Rules of this file:
- Every query ends ACKNOWLEDGED, or is DEFERRED and read again; one that was decided about only through RECORDED.
- RECORDED means that the broker has acknowledged the prediction and the decision is indexed. Only then may the query's
  offset be acknowledged, so that a crash repeats queries but loses none. A query with an audit is acknowledged when the
  audit is recorded too.
- What is asked for the log only, an audit, has a state of its own; it ends NOTED instead of ANSWERED or DEFAULTED.
  The audit of a process that ended before is NOTED at once.
- A move that the table does not have is a bug of ours and raises; nothing is moved silently.

Source: Clipper, section 5.2.2 (at the deadline, combine what arrived); the form is h11's.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType


class QueryState(IntEnum):
    """The state of a query or of an audit.

    KNOWN: its id was answered before. REPEATED: it was in flight already, and gets the same prediction. DEFERRED: there
    is no room for it now. WAITING: at least one model was asked. DEFAULTED: for one row at least.
    """

    READ = 0
    KNOWN = 1
    REPEATED = 2
    DEFERRED = 3
    WAITING = 4
    ANSWERED = 5
    DEFAULTED = 6
    NOTED = 7
    RECORDED = 8
    ACKNOWLEDGED = 9


class IllegalTransition(RuntimeError):
    """A query cannot have this state after the one that it has.

    A bug of the caller, so deliberately no `ClipperError`: nothing that answers for bad requests may swallow it.
    """


_S = QueryState
BEFORE: Mapping[QueryState, tuple[QueryState, ...]] = MappingProxyType(
    {
        _S.KNOWN: (_S.READ,),
        _S.REPEATED: (_S.READ,),
        _S.DEFERRED: (_S.READ,),
        _S.WAITING: (_S.READ,),
        _S.ANSWERED: (_S.WAITING,),
        _S.DEFAULTED: (_S.READ, _S.WAITING),
        _S.NOTED: (_S.READ, _S.WAITING),
        _S.RECORDED: (_S.ANSWERED, _S.DEFAULTED, _S.NOTED),
        _S.ACKNOWLEDGED: (_S.RECORDED, _S.KNOWN, _S.REPEATED),
    }
)
"""Every legal move: the state after, and those before."""
_ILLEGAL = 255
_MOVES = {to: bytes(to if before in legal else _ILLEGAL for before in range(256)) for to, legal in BEFORE.items()}


def set_state(column: bytearray, entries: Sequence[int], to: QueryState) -> None:
    """Give entries of a column another state.

    Raises:
        IllegalTransition: the table does not have the move of one of them; nothing was moved.

    >>> set_state(column := bytearray(3), [0, 2], QueryState.WAITING)
    >>> [QueryState(one).name for one in column]
    ['WAITING', 'READ', 'WAITING']
    """
    moves = _MOVES[to]
    if len(entries) == len(column):
        moved = column.translate(moves)
    else:
        moved = column[:]
        for entry in entries:
            moved[entry] = moves[column[entry]]
    if _ILLEGAL in moved:
        before = ", ".join(sorted({QueryState(column[entry]).name for entry in entries}))
        raise IllegalTransition(f"{to.name} after {before}: legal is after {', '.join(one.name for one in BEFORE[to])}")
    column[:] = moved
