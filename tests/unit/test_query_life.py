import itertools

import pytest

from clipper_stream.errors import ClipperError
from clipper_stream.query.lifecycle import MOVES, Event, IllegalMove, State, next_state


def walk(*events):
    state = State.RECEIVED
    for event in events:
        state = next_state(state, event)
    return state


def paths(state=State.RECEIVED, before=()):
    """Every way through the table, with no move taken twice."""
    yield (*before, state)
    for after in MOVES[state].values():
        if after is not state:
            yield from paths(after, (*before, state))


ANSWERED = (Event.RECORD, Event.ACKNOWLEDGE)
LIVES = {
    "combined": (Event.SELECT, Event.ASK, Event.TAKE_PART, Event.HAVE_ALL, Event.COMBINE),
    "all from the cache": (Event.SELECT, Event.HAVE_ALL, Event.COMBINE),
    "combined of what arrived by the deadline": (Event.SELECT, Event.ASK, Event.PASS_DEADLINE, Event.COMBINE),
    "nothing arrived by the deadline": (Event.SELECT, Event.ASK, Event.PASS_DEADLINE, Event.DEFAULT),
    "every model failed, or too little confidence": (Event.SELECT, Event.ASK, Event.HAVE_ALL, Event.DEFAULT),
    "nobody to ask": (Event.SELECT, Event.DEFAULT),
    "invalid": (Event.REFUSE, Event.DEFAULT),
    "late on arrival": (Event.ARRIVE_LATE, Event.DEFAULT),
    "asked for the log only": (Event.SELECT, Event.ASK, Event.HAVE_ALL, Event.NOTE),
    "asked for the log only, and late": (Event.SELECT, Event.ASK, Event.PASS_DEADLINE, Event.NOTE),
    "answered before": (Event.RECOGNISE,),
}


@pytest.mark.parametrize("life", LIVES)
def test_every_life_ends_acknowledged(life):
    assert walk(*LIVES[life], *ANSWERED) is State.ACKNOWLEDGED


def test_every_state_has_its_moves():
    assert set(MOVES) == set(State)


def test_every_state_and_every_event_is_part_of_some_life():
    assert {state for path in paths() for state in path} == set(State)
    assert {event for moves in MOVES.values() for event in moves} == set(Event)


def test_every_path_ends_acknowledged_and_through_recorded():
    whole = [path for path in paths() if not MOVES[path[-1]]]
    assert {path[-2:] for path in whole} == {(State.RECORDED, State.ACKNOWLEDGED)}


def test_the_table_has_no_way_back():
    assert all(len(set(path)) == len(path) for path in paths())


def test_a_query_past_its_deadline_on_arrival_asks_no_model():
    assert all(State.SELECTED not in path for path in paths() if State.LATE in path)


@pytest.mark.parametrize(
    ("state", "event"), [(s, e) for s, e in itertools.product(State, Event) if e not in MOVES[s]], ids=str
)
def test_every_other_move_raises(state, event):
    with pytest.raises(IllegalMove, match=f"{event.name} in state {state.name}"):
        next_state(state, event)


def test_an_illegal_move_is_no_fault_of_a_request_or_a_setting():
    assert not issubclass(IllegalMove, ClipperError)
