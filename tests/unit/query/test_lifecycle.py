from functools import reduce

import pytest

from clipper_stream.errors import ClipperError
from clipper_stream.query.lifecycle import MOVES, IllegalMove, QueryEvent, QueryState, next_state

LIVES = """
    SELECT ASK OUTPUT_ARRIVED ALL_ARRIVED COMBINE
    SELECT ALL_ARRIVED COMBINE
    SELECT ASK PASS_DEADLINE COMBINE
    SELECT ASK PASS_DEADLINE DEFAULT
    SELECT ASK ALL_ARRIVED DEFAULT
    SELECT DEFAULT
    REFUSE DEFAULT
    ARRIVE_LATE DEFAULT
    SELECT ASK ALL_ARRIVED NOTE
    SELECT ASK PASS_DEADLINE NOTE
    DUPLICATE
""".strip().splitlines()


def paths(state=QueryState.RECEIVED, before=()):
    """Every way through the table, with no move taken twice."""
    yield (*before, state)
    for after in MOVES[state].values():
        if after is not state:
            yield from paths(after, (*before, state))


@pytest.mark.parametrize("life", LIVES)
def test_every_life_ends_acknowledged(life):
    events = [QueryEvent[name] for name in f"{life} RECORD ACKNOWLEDGE".split()]
    assert reduce(next_state, events, QueryState.RECEIVED) is QueryState.ACKNOWLEDGED


def test_every_path_ends_acknowledged_through_recorded_and_none_turns_back_or_asks_when_late():
    found = [*paths()]
    assert {path[-2:] for path in found if not MOVES[path[-1]]} == {(QueryState.RECORDED, QueryState.ACKNOWLEDGED)}
    assert all(len(set(path)) == len(path) for path in found)
    assert all(QueryState.SELECTED not in path for path in found if QueryState.LATE in path)
    assert {state for path in found for state in path} == set(MOVES) == set(QueryState)
    assert {event for moves in MOVES.values() for event in moves} == set(QueryEvent)


def test_every_other_move_raises():
    assert not issubclass(IllegalMove, ClipperError), "it is no fault of a request or a setting"
    for state in QueryState:
        for event in set(QueryEvent) - set(MOVES[state]):
            with pytest.raises(IllegalMove, match=f"{event.name} in state {state.name}"):
                next_state(state, event)
