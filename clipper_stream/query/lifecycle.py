"""A query's life as a table: what may happen in which state, and what follows.

    RECEIVED -- DUPLICATE ---> KNOWN --------------------------------------------+
             |- REFUSE ------> REFUSED ---+                                      |
             |- ARRIVE_LATE -> LATE ------+------ DEFAULT -----> DEFAULTED --+   |
             '- SELECT ------> SELECTED --+                          ^       |   |
                               |      |                              |     RECORD, each
                              ASK  ALL_ARRIVED                       |       |   |
                               v      v                              |       v   v
                         WAITING --> COMPLETE --+------ DEFAULT -----+       RECORDED -- ACKNOWLEDGE --> ACKNOWLEDGED
            OUTPUT_ARRIVED |  ALL_ARRIVED       |                            ^
                 (stays)   +-------> EXPIRED ---+------ COMBINE -> COMBINED -+
                        PASS_DEADLINE

What is asked about a query for the log only (an audit) takes the same path beside it, to COMPLETE or EXPIRED, and then

    COMPLETE, EXPIRED -- NOTE --> NOTED -- RECORD --> RECORDED -- ACKNOWLEDGE --> ACKNOWLEDGED

Rules of this file:
- Every query, whatever goes wrong, is answered: each path ends in ACKNOWLEDGED, and only through RECORDED.
- RECORDED means that the broker has acknowledged the prediction and the decision is indexed. Only then may the query's
  offset be acknowledged, so that a crash repeats queries but loses none. A query with an audit is acknowledged when the
  audit is recorded too.
- A move that the table does not have is a bug of ours and raises; nothing is moved silently.

Source: Clipper, section 5.2.2 (at the deadline, combine what arrived); the form is h11's.
"""

from collections.abc import Mapping
from enum import IntEnum, auto
from functools import reduce
from types import MappingProxyType


class QueryState(IntEnum):
    """The state of a query."""

    RECEIVED = auto()
    """Decoded, or found undecodable."""
    KNOWN = auto()
    """Its id was answered before: the recorded decision is the answer again."""
    REFUSED = auto()
    """Invalid, or nobody to ask: the default with an explanation."""
    LATE = auto()
    """Past its deadline on arrival: the default at once, no model is asked."""
    SELECTED = auto()
    """The policy has chosen models."""
    WAITING = auto()
    """Outputs are outstanding: requested, or of an identical row in flight."""
    COMPLETE = auto()
    """Every model asked has answered or failed, or all was cached."""
    EXPIRED = auto()
    """The deadline passed while outputs were outstanding."""
    COMBINED = auto()
    """The answer is the combination of the outputs that are here."""
    DEFAULTED = auto()
    """The answer is the application's default."""
    NOTED = auto()
    """Of an audit: the outputs that are here are listed, and nothing is combined."""
    RECORDED = auto()
    """The prediction, or the audit, is acknowledged by the broker and indexed."""
    ACKNOWLEDGED = auto()
    """The query's offset is acknowledged; nothing follows."""


class QueryEvent(IntEnum):
    """An event in the life of a query."""

    DUPLICATE = auto()
    """A decision with its id is recorded already."""
    REFUSE = auto()
    """The application, the models named or the input cannot be used."""
    ARRIVE_LATE = auto()
    """Its deadline has passed when it is read, or is so near that no model answers by then."""
    SELECT = auto()
    """The policy chooses."""
    ASK = auto()
    """At least one row is neither cached nor failed: it is requested, or joins an identical row in flight."""
    OUTPUT_ARRIVED = auto()
    """An output or a failure arrives, and others are outstanding."""
    ALL_ARRIVED = auto()
    """Nothing is outstanding."""
    PASS_DEADLINE = auto()
    """The deadline passes."""
    COMBINE = auto()
    """The outputs are combined, with enough confidence."""
    DEFAULT = auto()
    """The default is taken: no output, or too little confidence."""
    NOTE = auto()
    """Of an audit: what is here is listed."""
    RECORD = auto()
    """The broker acknowledges the prediction, or the audit, and it is indexed."""
    ACKNOWLEDGE = auto()
    """The query's offset is in the finished prefix of its partition."""


class IllegalMove(RuntimeError):
    """An event is not allowed in the state of the query.

    A bug of the caller, so deliberately no `ClipperError`: nothing that answers for bad requests may swallow it.
    """


_S, _E = QueryState, QueryEvent
_DECIDE = MappingProxyType(
    {
        _E.COMBINE: _S.COMBINED,
        _E.DEFAULT: _S.DEFAULTED,
        _E.NOTE: _S.NOTED,
    }
)

MOVES: Mapping[QueryState, Mapping[QueryEvent, QueryState]] = MappingProxyType(
    {
        _S.RECEIVED: {
            _E.DUPLICATE: _S.KNOWN,
            _E.REFUSE: _S.REFUSED,
            _E.ARRIVE_LATE: _S.LATE,
            _E.SELECT: _S.SELECTED,
        },
        _S.KNOWN: {_E.RECORD: _S.RECORDED},
        _S.REFUSED: {_E.DEFAULT: _S.DEFAULTED},
        _S.LATE: {_E.DEFAULT: _S.DEFAULTED},
        _S.SELECTED: {
            _E.ASK: _S.WAITING,
            _E.ALL_ARRIVED: _S.COMPLETE,
            _E.DEFAULT: _S.DEFAULTED,
        },
        _S.WAITING: {
            _E.OUTPUT_ARRIVED: _S.WAITING,
            _E.ALL_ARRIVED: _S.COMPLETE,
            _E.PASS_DEADLINE: _S.EXPIRED,
        },
        _S.COMPLETE: _DECIDE,
        _S.EXPIRED: _DECIDE,
        _S.COMBINED: {_E.RECORD: _S.RECORDED},
        _S.DEFAULTED: {_E.RECORD: _S.RECORDED},
        _S.NOTED: {_E.RECORD: _S.RECORDED},
        _S.RECORDED: {_E.ACKNOWLEDGE: _S.ACKNOWLEDGED},
        _S.ACKNOWLEDGED: {},
    }
)
"""Every legal move: the state before, the event, the state after."""


def next_state(state: QueryState, event: QueryEvent) -> QueryState:
    """The state after the event: two dictionary lookups.

    Raises:
        IllegalMove: the event cannot happen in this state.
    """
    try:
        return MOVES[state][event]
    except KeyError:
        legal = ", ".join(move.name for move in MOVES[state]) or "nothing"
        raise IllegalMove(f"{event.name} in state {state.name}: legal is {legal}") from None


class TransitionPath:
    """Several moves looked up in one step; every query takes three paths from reading to acknowledgement.

    >>> TransitionPath(QueryEvent.SELECT, QueryEvent.ASK).end(QueryState.RECEIVED).name
    'WAITING'
    """

    __slots__ = ("_ends", "events")

    def __init__(self, *events: QueryEvent) -> None:
        self.events = events
        self._ends = {state.value: end for state in QueryState if (end := self._walk(state)) is not None}

    def end(self, state: QueryState) -> QueryState:
        """The state after all events of the path; `IllegalMove` as `next_state`."""
        found = self._ends.get(state._value_)
        return reduce(next_state, self.events, state) if found is None else found

    def _walk(self, state: QueryState) -> QueryState | None:
        try:
            return reduce(next_state, self.events, state)
        except IllegalMove:
            return None


# --- the paths of queries ---------------------------------------------------------------------------------------------
ASKED = TransitionPath(_E.SELECT, _E.ASK)
REFUSED = TransitionPath(_E.REFUSE, _E.DEFAULT)
ARRIVED_LATE = TransitionPath(_E.ARRIVE_LATE, _E.DEFAULT)
DUPLICATED = TransitionPath(_E.DUPLICATE)
COMPLETE = tuple(TransitionPath(_E.ALL_ARRIVED, end) for end in (_E.COMBINE, _E.DEFAULT, _E.NOTE))
"""Every output is there: combined; the default after all; of an audit, listed."""
EXPIRED = tuple(TransitionPath(_E.PASS_DEADLINE, end) for end in (_E.COMBINE, _E.DEFAULT, _E.NOTE))
"""The same at the deadline."""
RECORDED = TransitionPath(_E.RECORD)
ACKNOWLEDGED = TransitionPath(_E.ACKNOWLEDGE)
FINISHED = TransitionPath(_E.RECORD, _E.ACKNOWLEDGE)
"""Recorded, and nothing else is waited for."""
