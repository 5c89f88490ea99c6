import pytest
from builders.kafka import record

from clipper_agents.replay.checkpoints import Checkpoints
from clipper_topics.selection_rows import RowKey, encode_key, encode_row, note_row

AT_TWICE = ["a1", "b2", "2", "a5", "7", "b8"], [(2, {"a": 1, "b": 2}), (7, {"a": 5})], {"b": 8}
BEYOND = ["a50", "45", "b47", "49", "55"], [(45, {}), (49, {"b": 47}), (55, {"a": 50})], {}


def steps_of(table, rows, partition=0):
    """The steps that rows end: an application and an offset; without an application it is the position."""
    for row in rows:
        key, number = RowKey(row.rstrip("0123456789"), None, partition), int(row.lstrip("ab"))
        step = table.take(record(0, encode_row(note_row(number)), encode_key(key)))
        if step is not None:
            yield step.position, {name: row.offset for (name, _), row in step.rows.items()}


@pytest.mark.parametrize(("rows", "steps", "ahead"), [AT_TWICE, BEYOND])
def test_a_position_ends_a_step_of_the_rows_that_it_has_reached(rows, steps, ahead):
    table = Checkpoints(0)
    assert [*steps_of(table, rows)] == steps
    assert table.position == steps[-1][0]
    assert {name: one.offset for (name, _), one in table.ahead.items()} == ahead


def test_of_the_rows_with_one_key_the_last_counts_as_for_the_table():
    table = Checkpoints(0)
    assert [*steps_of(table, ["a3", "3", "a9", "a2"])] == [(3, {"a": 3})]
    assert table.live["a", None].offset == 2


def test_what_is_no_row_or_of_another_partition_is_no_checkpoint():
    table = Checkpoints(0)
    assert table.take(record(0, b"nothing", b"key")) is None
    assert table.take(record(1, None, encode_key(RowKey("a", None, 0)))) is None
    assert [*steps_of(table, ["a1"], partition=3)] == []
    assert (table.live, [key.partition for key in table.misplaced]) == ({}, [3])
