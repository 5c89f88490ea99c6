import itertools

import pytest

from clipper_stream.errors import ClipperError
from clipper_stream.query.lifecycle import MOVES, IllegalMove, QueryEvent, QueryState, next_state


def walk(*events):
    state = QueryState.RECEIVED
    for event in events:
        state = next_state(state, event)
    return state


def paths(state=QueryState.RECEIVED, before=()):
    """Every way through the table, with no move taken twice."""
    yield (*before, state)
    for after in MOVES[state].values():
        if after is not state:
            yield from paths(after, (*before, state))


ANSWERED = (QueryEvent.RECORD, QueryEvent.ACKNOWLEDGE)
LIVES = {
    "combined": (
        QueryEvent.SELECT,
        QueryEvent.ASK,
        QueryEvent.OUTPUT_ARRIVED,
        QueryEvent.ALL_ARRIVED,
        QueryEvent.COMBINE,
    ),
    "all from the cache": (QueryEvent.SELECT, QueryEvent.ALL_ARRIVED, QueryEvent.COMBINE),
    "combined of what arrived by the deadline": (
        QueryEvent.SELECT,
        QueryEvent.ASK,
        QueryEvent.PASS_DEADLINE,
        QueryEvent.COMBINE,
    ),
    "nothing arrived by the deadline": (
        QueryEvent.SELECT,
        QueryEvent.ASK,
        QueryEvent.PASS_DEADLINE,
        QueryEvent.DEFAULT,
    ),
    "every model failed, or too little confidence": (
        QueryEvent.SELECT,
        QueryEvent.ASK,
        QueryEvent.ALL_ARRIVED,
        QueryEvent.DEFAULT,
    ),
    "nobody to ask": (QueryEvent.SELECT, QueryEvent.DEFAULT),
    "invalid": (QueryEvent.REFUSE, QueryEvent.DEFAULT),
    "late on arrival": (QueryEvent.ARRIVE_LATE, QueryEvent.DEFAULT),
    "asked for the log only": (QueryEvent.SELECT, QueryEvent.ASK, QueryEvent.ALL_ARRIVED, QueryEvent.NOTE),
    "asked for the log only, and late": (QueryEvent.SELECT, QueryEvent.ASK, QueryEvent.PASS_DEADLINE, QueryEvent.NOTE),
    "answered before": (QueryEvent.DUPLICATE,),
}


@pytest.mark.parametrize("life", LIVES)
def test_every_life_ends_acknowledged(life):
    assert walk(*LIVES[life], *ANSWERED) is QueryState.ACKNOWLEDGED


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
