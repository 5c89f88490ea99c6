"""A query's life as a table: what may happen in which state, and what follows.

    RECEIVED -- RECOGNISE ---> KNOWN --------------------------------------------+
             |- REFUSE ------> REFUSED ---+                                      |
             |- ARRIVE_LATE -> LATE ------+------ DEFAULT -----> DEFAULTED --+   |
             '- SELECT ------> SELECTED --+                          ^       |   |
                               |      |                              |     RECORD, each
                              ASK  HAVE_ALL                          |       |   |
                               v      v                              |       v   v
                         WAITING --> COMPLETE --+------ DEFAULT -----+       RECORDED -- ACKNOWLEDGE --> ACKNOWLEDGED
                TAKE_PART  |  HAVE_ALL          |                            ^
                 (stays)   +-------> EXPIRED ---+------ COMBINE -> COMBINED -+
                        PASS_DEADLINE

What is asked about a query for the log only (an audit) takes the same way beside it, to COMPLETE or EXPIRED, and then

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


class State(IntEnum):
    """Where a query is.

    >>> next_state(State.WAITING, Event.PASS_DEADLINE)
    <State.EXPIRED: 8>
    """

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


class Event(IntEnum):
    """What happens to a query.

    >>> Event.SELECT.name
    'SELECT'
    """

    RECOGNISE = auto()
    """A decision with its id is recorded already."""
    REFUSE = auto()
    """The application, the models named or the input cannot be used."""
    ARRIVE_LATE = auto()
    """Its deadline has passed when it is read."""
    SELECT = auto()
    """The policy chooses."""
    ASK = auto()
    """At least one row is neither cached nor failed: it is requested, or joins an identical row in flight."""
    TAKE_PART = auto()
    """An output or a failure arrives, and others are outstanding."""
    HAVE_ALL = auto()
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
    """An event that the state does not allow.

    A bug of the caller, so deliberately no `ClipperError`: nothing that answers for bad requests may swallow it.
    """


_DECIDE = MappingProxyType({Event.COMBINE: State.COMBINED, Event.DEFAULT: State.DEFAULTED, Event.NOTE: State.NOTED})

MOVES: Mapping[State, Mapping[Event, State]] = MappingProxyType(
    {
        State.RECEIVED: {
            Event.RECOGNISE: State.KNOWN,
            Event.REFUSE: State.REFUSED,
            Event.ARRIVE_LATE: State.LATE,
            Event.SELECT: State.SELECTED,
        },
        State.KNOWN: {Event.RECORD: State.RECORDED},
        State.REFUSED: {Event.DEFAULT: State.DEFAULTED},
        State.LATE: {Event.DEFAULT: State.DEFAULTED},
        State.SELECTED: {Event.ASK: State.WAITING, Event.HAVE_ALL: State.COMPLETE, Event.DEFAULT: State.DEFAULTED},
        State.WAITING: {
            Event.TAKE_PART: State.WAITING,
            Event.HAVE_ALL: State.COMPLETE,
            Event.PASS_DEADLINE: State.EXPIRED,
        },
        State.COMPLETE: _DECIDE,
        State.EXPIRED: _DECIDE,
        State.COMBINED: {Event.RECORD: State.RECORDED},
        State.DEFAULTED: {Event.RECORD: State.RECORDED},
        State.NOTED: {Event.RECORD: State.RECORDED},
        State.RECORDED: {Event.ACKNOWLEDGE: State.ACKNOWLEDGED},
        State.ACKNOWLEDGED: {},
    }
)
"""Every legal move: the state before, the event, the state after."""


def next_state(state: State, event: Event) -> State:
    """The state after the event: two dictionary lookups.

    Raises:
        IllegalMove: the event cannot happen in this state.

    >>> next_state(State.RECEIVED, Event.SELECT).name
    'SELECTED'
    """
    try:
        return MOVES[state][event]
    except KeyError:
        legal = ", ".join(move.name for move in MOVES[state]) or "nothing"
        raise IllegalMove(f"{event.name} in state {state.name}: legal is {legal}") from None


class Way:
    """Several moves at once, looked up in one step: every query takes three ways, from reading to acknowledgement.

    Args:
        events: What happens, in order.

    >>> Way(Event.SELECT, Event.ASK).end(State.RECEIVED).name
    'WAITING'

    Source: as the module.
    """

    __slots__ = ("_ends", "events")

    def __init__(self, *events: Event) -> None:
        self.events = events
        self._ends = {state.value: end for state in State if (end := self._walk(state)) is not None}

    def end(self, state: State) -> State:
        """The state after all of it.

        Raises:
            IllegalMove: an event cannot happen in the state in which it finds the query.
        """
        found = self._ends.get(state._value_)
        return reduce(next_state, self.events, state) if found is None else found

    def _walk(self, state: State) -> State | None:
        try:
            return reduce(next_state, self.events, state)
        except IllegalMove:
            return None
