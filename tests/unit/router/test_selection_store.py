"""Choices follow the rows: own ones from the table, those of other routers as they were published."""

import asyncio

import msgspec
import pytest
from builders.kafka import record
from builders.query_router import application

from clipper_agents.control.selection_states import row_of, state_of
from clipper_agents.kafka.errors import StaleReferences
from clipper_agents.router.selection_store import SelectionStore
from clipper_stream.selection.state import ModelTotals, SelectionState
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


class FakeTable:
    """Rows by partition, in memory."""

    def __init__(self):
        self.partitions = {}

    def get_row(self, partition, key):
        return self.partitions.get(partition, {}).get(key)

    def items(self, partition, first=b""):
        return iter(sorted(one for one in self.partitions.get(partition, {}).items() if one[0] >= first))

    async def write(self, partition, rows, beside=()):
        self.partitions.setdefault(partition, {}).update(rows)
        self.last = list(rows)


@pytest.fixture
def table():
    return FakeTable()


@pytest.fixture
def selection(table):
    found = SelectionStore(table, partitions=3)
    found.own([0, 1])
    return found


def write(selection, partition, state, offset=0, context=None, name="app"):
    rows = {(name, context): row_of(state, offset, 1)}
    asyncio.run(selection.write(partition, rows, offset))


def published(partition, state, offset=0, context=None):
    other, table = FakeTable(), None
    table = SelectionStore(other, 3)
    table.own([partition])
    write(table, partition, state, offset, context)
    return [record(offset, value, key, "selection") for key, value, _ in table.unpublished()]


def weights(selection, partition=0, context=None):
    return selection.prepare(APP, partition, context).weights


def test_the_position_is_stored_with_the_rows_and_after_them(selection, table):
    write(selection, 0, GOOD_A, offset=41)
    assert (selection.position(0), selection.position(1)) == (41, -1)
    assert selection.row("app", None, 0).offset == 41
    assert selection.row("app", None, 1) == NO_ROW
    assert b"app" not in table.last[-1]


def test_positions_say_which_topics_they_refer_to_and_no_others_are_taken(selection, table):
    topics = {"queries": b"q" * 16, "feedback": b"f" * 16}
    asyncio.run(selection.refer_to(topics))
    assert selection.position(0) == -1, "nothing was learned, but another topic would be noticed"
    write(selection, 0, GOOD_A, offset=41)
    asyncio.run(selection.refer_to(topics))
    assert selection.position(0) == 41

    later = SelectionStore(table, partitions=3)
    later.own([0, 1])
    with pytest.raises(StaleReferences, match=r"topic feedback was deleted and created again.*`clipper-stream topics"):
        asyncio.run(later.refer_to(topics | {"feedback": b"g" * 16}))


def test_a_choice_changes_when_a_row_changes(selection):
    before = weights(selection)
    assert before["a:1"] == before["b:1"]
    write(selection, 0, GOOD_A)
    assert weights(selection)["a:1"] > before["a:1"]
    assert weights(selection) is weights(selection)


def test_without_contexts_all_partitions_count_in_partition_order(selection):
    write(selection, 0, GOOD_A)
    write(selection, 1, GOOD_A, offset=1)
    assert selection.state("app", 0, None).of("a:1").count == 20
    selection.take_published(published(2, GOOD_B))
    assert selection.state("app", 0, None).of("a:1").count == 119
    assert weights(selection)["b:1"] > weights(selection)["a:1"]
    assert list(selection.state("app", 0, None).totals) == ["a:1", "b:1"]


def test_own_totals_that_come_back_are_not_counted_twice(selection):
    write(selection, 0, GOOD_A)
    selection.take_published(published(0, GOOD_A))
    assert selection.state("app", 0, None).of("a:1").count == 10


def test_a_partition_that_was_lost_counts_as_its_new_owner_published_it(selection):
    write(selection, 0, GOOD_A)
    selection.take_published(published(0, GOOD_B))
    selection.own([1])
    assert selection.state("app", 0, None).of("a:1").count == 99


def test_a_context_has_choices_of_its_own(selection):
    write(selection, 0, GOOD_A, context="somebody")
    shared = weights(selection)
    assert shared["a:1"] == shared["b:1"]
    assert weights(selection, 0, "somebody")["a:1"] > shared["a:1"]
    write(selection, 0, GOOD_B, offset=1, context="somebody")
    assert weights(selection, 0, "somebody")["a:1"] < shared["a:1"]


def test_only_changed_rows_without_context_are_published_once(selection):
    write(selection, 0, GOOD_A)
    write(selection, 0, GOOD_A, offset=1, context="somebody")
    write(selection, 0, GOOD_B, offset=2)
    (one,) = selection.unpublished()
    assert state_of_value(one[1]) == GOOD_B
    assert selection.unpublished() == []


def test_rows_of_a_lost_partition_are_published_no_more(selection):
    write(selection, 0, GOOD_A)
    selection.own([1])
    assert selection.unpublished() == []


def test_rows_are_published_when_their_partition_is_taken_over(selection, table):
    write(selection, 1, GOOD_A)
    selection.unpublished()
    selection.own([1])
    assert len(selection.unpublished()) == 1


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
    selection.take_published([record(0, value, key), *published(2, GOOD_B)])
    assert selection.state("app", 0, None).of("a:1").count == 99


def test_totals_that_are_taken_back_count_no_more(selection):
    (one,) = published(2, GOOD_B)
    selection.take_published([one])
    weights(selection)
    selection.take_published([record(1, None, one.key)])
    assert selection.state("app", 0, None).totals == {}
    assert weights(selection)["a:1"] == weights(selection)["b:1"]


def test_an_audit_asks_all_candidates_for_its_share_of_the_queries(selection):
    audited = application("app", ("a:1", "b:1"), "single", audit_ratio=0.25)
    decisions = selection.prepare(audited, 0, None).decisions
    assert {len(decision.models) for decision in decisions} == {1, 2}


def test_a_bounded_number_of_choices_is_kept(table):
    selection = SelectionStore(table, partitions=3, max_prepared=10)
    for number in range(50):
        selection.prepare(APP, 0, f"context {number}")
    assert len(selection._prepared) == 10


def test_a_row_holds_a_state_bit_for_bit():
    totals = {"a:1": ModelTotals(0.1 + 0.2, 1e-300, 1 / 3, 7.0), "b:1": ModelTotals(1.0, 0.0, 1.0, 0.0, (0.1,) * 5)}
    state = SelectionState(totals)

    assert state_of(decode_row(encode_row(row_of(state, 5, 2)))) == state
    key = RowKey("app", None, 3)
    assert decode_key(encode_key(key)) == key


def state_of_value(value):

    return state_of(decode_row(value))


async def test_notes_are_stored_behind_the_rows_and_before_the_position(selection, table):
    """Else a step that is cut behind the note of a restore would look as if the rows of a second one were stored."""
    note, row = row_of(SelectionState(), 5, 1), row_of(GOOD_A, 5, 1)
    await selection.write(0, {("", "app"): note, ("app", "c"): row}, 5)
    assert [decode_key(key) for key in table.last] == [
        RowKey("app", "c", 0),
        RowKey("", "app", 0),
        RowKey("", None, 0),
    ]
    assert (selection.position(0), selection.row("", "app", 0).applied) == (5, 1)
    assert selection.contexts("app", 0) == ["c"]
    assert selection.unpublished() == []


def test_a_row_that_a_restore_empties_is_published_and_chosen_by(selection):
    write(selection, 0, GOOD_A)
    assert weights(selection)["a:1"] > weights(selection)["b:1"]
    selection.unpublished()
    write(selection, 0, SelectionState(), offset=1)
    assert weights(selection)["a:1"] == weights(selection)["b:1"]
    ((_, value, _),) = selection.unpublished()
    assert decode_row(value).totals == []


NEWER = encode_row(msgspec.structs.replace(row_of(GOOD_A, 5, 1), version=ROW_VERSION + 1))


def test_a_row_of_a_newer_release_is_refused_with_what_to_do(selection, table):
    table.partitions[0] = {encode_key(RowKey(*POSITION, 0)): NEWER}
    with pytest.raises(UnknownRowVersion, match="version 2, this release reads 1: start the release that wrote it"):
        selection.position(0)
    with pytest.raises(UnknownRowVersion):
        read_row(encode_key(RowKey("app", None, 0)), NEWER)


def test_published_totals_of_a_newer_release_are_ignored_and_said(selection, caplog):
    selection.take_published([record(0, NEWER, encode_key(RowKey("app", None, 2)), "selection")])
    assert selection.state("app", 0, None).totals == {}
    assert "version 2, this release reads 1" in caplog.text
