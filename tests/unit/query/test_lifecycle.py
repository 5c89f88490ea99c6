import pytest

from clipper_stream.errors import ClipperError
from clipper_stream.query.batch import BEFORE, IllegalTransition, QueryState, set_state

LIVES = """
    WAITING ANSWERED RECORDED ACKNOWLEDGED
    WAITING DEFAULTED RECORDED ACKNOWLEDGED
    DEFAULTED RECORDED ACKNOWLEDGED
    WAITING NOTED RECORDED ACKNOWLEDGED
    NOTED RECORDED ACKNOWLEDGED
    KNOWN ACKNOWLEDGED
    REPEATED ACKNOWLEDGED
    DEFERRED
""".strip().splitlines()


def lives(status=QueryState.READ, before=()):
    """Every way through the table, with no move taken twice."""
    after = [to for to, legal in BEFORE.items() if status in legal]
    if not after:
        yield (*before, status)
    for to in after:
        yield from lives(to, (*before, status))


def test_the_table_has_exactly_the_lives_that_a_query_may_have():
    assert {tuple(one.name for one in life[1:]) for life in lives()} == {tuple(life.split()) for life in LIVES}


@pytest.mark.parametrize("to", [*BEFORE])
def test_every_other_move_raises_and_moves_nothing(to):
    assert not issubclass(IllegalTransition, ClipperError), "it is no fault of a request or a setting"
    for status in QueryState:
        for entries in ([1], [0, 1]):
            column = bytearray([BEFORE[to][0], status])
            before = bytes(column)
            if status in BEFORE[to]:
                set_state(column, entries, to)
                assert [column[entry] for entry in entries] == [to] * len(entries)
            else:
                with pytest.raises(IllegalTransition, match=f"{to.name} after .*{status.name}"):
                    set_state(column, entries, to)
                assert column == before
