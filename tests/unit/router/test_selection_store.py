"""Choices follow the rows: own ones from the table, those of other routers as they were published."""

import asyncio

import msgspec
import pytest
from builders.kafka import record
from builders.query_router import application
from hypothesis import given
from hypothesis import strategies as st
from unit.router.rig import FakeTable

from clipper_agents.control.selection_states import row_of, state_of
from clipper_agents.kafka.errors import StaleReferences
from clipper_agents.router import selection_store
from clipper_agents.router.selection_store import SelectionStore
from clipper_stream.selection.state import ModelTotals, SelectionState, merge
from clipper_topics.errors import UnknownRowVersion
from clipper_topics.selection_rows import (
    NO_ROW,
    POSITION,
    ROW_VERSION,
    RowKey,
    decode_key,
    decode_row,
    encode_key,
    encode_row,
    read_row,
)

APP = application("app", ("a:1", "b:1"), "exp4")
GOOD_A = SelectionState({"a:1": ModelTotals(10, 0, 10, 0), "b:1": ModelTotals(10, 10, 10, 10)})
GOOD_B = SelectionState({"a:1": ModelTotals(99, 99, 99, 99), "b:1": ModelTotals(99, 0, 99, 0)})


@pytest.fixture
def table():
    return FakeTable()


def store_of(table, *owned):
    found = SelectionStore(table, 3)
    found.own(owned or (0, 1))
    return found


@pytest.fixture
def selection(table):
    return store_of(table)


async def write(selection, partition, state, offset=0, context=None, name="app"):
    await selection.write(partition, {(name, context): row_of(state, offset, 1)}, offset)


def published(partition, state):
    """A record of another router's totals; None takes them back."""
    value = None if state is None else encode_row(row_of(state, 0, 1))
    return record(0, value, encode_key(RowKey("app", None, partition)))


def weights(selection, partition=0, context=None):
    return selection.prepare(APP, partition, context).weights


async def test_positions_say_which_topics_they_refer_to_and_no_others_are_taken(selection, table):
    topics = {"queries": b"q" * 16, "feedback": b"f" * 16}
    await selection.refer_to(topics)
    assert selection.position(0) == -1, "nothing was learned, but another topic would be noticed"
    await write(selection, 0, GOOD_A, offset=41)
    await selection.refer_to(topics)
    assert selection.position(0) == 41
    with pytest.raises(StaleReferences, match=r"topic feedback was deleted and created again.*`clipper-stream topics"):
        await store_of(table).refer_to(topics | {"feedback": b"g" * 16})


EMPTY, PARTITIONS = SelectionState(), st.integers(0, 2)
STATES = st.sampled_from([EMPTY, GOOD_A, GOOD_B])
HAPPENED = st.one_of(
    st.tuples(st.just("own"), st.sets(PARTITIONS)),
    st.tuples(st.just("write"), PARTITIONS, st.sampled_from([None, "c"]), STATES),
    st.tuples(st.just("take"), PARTITIONS, STATES | st.none()),
    st.just(("publish",)),
)


@given(st.lists(HAPPENED, max_size=12))
def test_choices_follow_the_rows_and_those_that_changed_are_published_once(happened):
    """Without a context all partitions count: own rows as they are in the table, others as they were published last."""
    selection, rows, theirs, owned, changed = store_of(FakeTable()), {}, {}, {0, 1}, set()
    for offset, (what, *about) in enumerate(happened):
        match what, *about:
            case "own", owned:
                selection.own(owned)
                changed |= {partition for partition, context in rows if context is None}
            case "write", partition, context, state if partition in owned:
                asyncio.run(write(selection, partition, state, offset, context))
                rows[partition, context] = state
                changed |= {partition} if context is None else set()
            case "take", partition, state:
                selection.take_published([published(partition, state)])
                theirs[partition] = state or EMPTY
            case ("publish",):
                found = {decode_key(key).partition: decode_row(value) for key, value, _ in selection.unpublished()}
                wanted = {partition: rows[partition, None] for partition in changed & owned}
                assert {partition: state_of(row) for partition, row in found.items()} == wanted
                changed.clear()
        parts = [rows.get((each, None), EMPTY) if each in owned else theirs.get(each, EMPTY) for each in range(3)]
        contexts = {(each, "c"): rows.get((each, "c"), EMPTY) for each in range(3)}
        for place, state in {(0, None): merge(parts), **contexts}.items():
            assert selection.state("app", *place) == state
            assert weights(selection, *place) == APP.choice(state).weights


async def test_a_takeover_publishes_the_rows_without_a_context_and_looks_at_no_others(selection, table):
    """A partition may have millions of contexts."""
    for name in ("app", "other"):
        rows = {(name, f"c{number}"): row_of(GOOD_A, number, 1) for number in range(100)}
        await selection.write(1, rows | {(name, None): row_of(GOOD_A, 100, 1)}, 100)
    selection.unpublished()
    table.looked = 0
    selection.own([1])
    assert table.looked <= 4
    assert [decode_key(key) for key, *_ in selection.unpublished()] == [
        RowKey(one, None, 1) for one in ("app", "other")
    ]


def test_a_changed_application_is_chosen_for_anew(selection):
    before = weights(selection)
    selection.forget("other")
    assert weights(selection) is before
    selection.forget("app")
    assert weights(selection) is not before


@pytest.mark.parametrize(
    ("key", "value"), [(None, b"x"), (b"junk", b"x"), (b"\x93\xa3app\xc0\x02", b"\xc1"), (b"\x01", None)]
)
def test_records_that_are_no_totals_are_ignored(selection, key, value):
    selection.take_published([record(0, value, key), published(2, GOOD_B)])
    assert selection.state("app", 0, None) == GOOD_B


def test_a_bounded_number_of_choices_is_kept(table, monkeypatch):
    monkeypatch.setattr(selection_store, "MAX_PREPARED", 10)
    selection = store_of(table)
    made = [selection.prepare(APP, 0, f"c{number}") for number in range(50)]
    assert all(selection.prepare(APP, 0, f"c{number}") is made[number] for number in range(40, 50))
    assert selection.prepare(APP, 0, "c39") is not made[39]


async def test_notes_are_stored_behind_the_rows_and_before_the_position(selection, table):
    """Else a step that is cut behind the note of a restore would look as if the rows of a second one were stored."""
    note, row = row_of(SelectionState(), 5, 1), row_of(GOOD_A, 5, 1)
    await selection.write(0, {("", "app"): note, ("app", "c"): row}, 41)
    keys = ("app", "c"), ("", "app"), ("", None)
    assert [decode_key(key) for key in table.writes[-1]] == [RowKey(*key, 0) for key in keys]
    assert (selection.position(0), selection.position(1), selection.row("", "app", 0).applied) == (41, -1, 1)
    assert (selection.row("app", "c", 0), selection.row("app", "c", 1)) == (row, NO_ROW)
    assert (selection.contexts("app", 0), selection.unpublished()) == (["c"], [])


NEWER = encode_row(msgspec.structs.replace(row_of(GOOD_A, 5, 1), version=ROW_VERSION + 1))
REFUSED = f"version {ROW_VERSION + 1}, this release reads {ROW_VERSION}"


def test_a_row_of_a_newer_release_is_refused_with_what_to_do_and_published_totals_are_ignored(selection, table, caplog):
    table.partitions[0] = {encode_key(RowKey(*POSITION, 0)): NEWER}
    with pytest.raises(UnknownRowVersion, match=f"{REFUSED}: start the release that wrote it"):
        selection.position(0)
    with pytest.raises(UnknownRowVersion):
        read_row(encode_key(RowKey("app", None, 0)), NEWER)
    selection.take_published([record(0, NEWER, encode_key(RowKey("app", None, 2)), "selection")])
    assert selection.state("app", 0, None).totals == {}
    assert REFUSED in caplog.text
