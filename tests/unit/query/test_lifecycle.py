import itertools
from functools import reduce

import pytest

from clipper_stream.errors import ClipperError
from clipper_stream.query.lifecycle import MOVES, IllegalMove, QueryEvent, QueryState, next_state


def paths(state=QueryState.RECEIVED, before=()):
    """Every way through the table, with no move taken twice."""
    yield (*before, state)
    for after in MOVES[state].values():
        if after is not state:
            yield from paths(after, (*before, state))


LIVES = {
    "combined": "SELECT ASK OUTPUT_ARRIVED ALL_ARRIVED COMBINE",
    "all from the cache": "SELECT ALL_ARRIVED COMBINE",
    "combined of what arrived by the deadline": "SELECT ASK PASS_DEADLINE COMBINE",
    "nothing arrived by the deadline": "SELECT ASK PASS_DEADLINE DEFAULT",
    "every model failed, or too little confidence": "SELECT ASK ALL_ARRIVED DEFAULT",
    "nobody to ask": "SELECT DEFAULT",
    "invalid": "REFUSE DEFAULT",
    "late on arrival": "ARRIVE_LATE DEFAULT",
    "asked for the log only": "SELECT ASK ALL_ARRIVED NOTE",
    "asked for the log only, and late": "SELECT ASK PASS_DEADLINE NOTE",
    "answered before": "DUPLICATE",
}


@pytest.mark.parametrize("life", LIVES)
def test_every_life_ends_acknowledged(life):
    events = [QueryEvent[name] for name in f"{LIVES[life]} RECORD ACKNOWLEDGE".split()]
    assert reduce(next_state, events, QueryState.RECEIVED) is QueryState.ACKNOWLEDGED


def test_every_state_has_its_moves():
    assert set(MOVES) == set(QueryState)


def test_every_state_and_every_event_is_part_of_some_life():
    assert {state for path in paths() for state in path} == set(QueryState)
    assert {event for moves in MOVES.values() for event in moves} == set(QueryEvent)


def test_every_path_ends_acknowledged_and_through_recorded():
    whole = [path for path in paths() if not MOVES[path[-1]]]
    assert {path[-2:] for path in whole} == {(QueryState.RECORDED, QueryState.ACKNOWLEDGED)}


def test_the_table_has_no_way_back():
    assert all(len(set(path)) == len(path) for path in paths())


def test_a_query_past_its_deadline_on_arrival_asks_no_model():
    assert all(QueryState.SELECTED not in path for path in paths() if QueryState.LATE in path)


@pytest.mark.parametrize(
    ("state", "event"), [(s, e) for s, e in itertools.product(QueryState, QueryEvent) if e not in MOVES[s]], ids=str
)
def test_every_other_move_raises(state, event):
    with pytest.raises(IllegalMove, match=f"{event.name} in state {state.name}"):
        next_state(state, event)


def test_an_illegal_move_is_no_fault_of_a_request_or_a_setting():
    assert not issubclass(IllegalMove, ClipperError)
