"""A changelog tells steps: each position with the rows that it has reached."""

import pytest
from builders.kafka import record

from clipper_agents.replay.checkpoints import Checkpoints
from clipper_topics.selection_rows import RowKey, encode_key, encode_row, note_row


def steps_of(table, *rows, partition=0):
    """The steps that rows end: application (empty: the position), offset, and how many feedbacks counted."""
    steps = [
        table.take(record(0, encode_row(note_row(offset, applied)), encode_key(RowKey(name, None, partition))))
        for name, offset, applied in rows
    ]
    return [(one.position, {place[0]: row.offset for place, row in one.rows.items()}) for one in steps if one]


@pytest.mark.parametrize(
    ("rows", "steps", "ahead"),
    [
        (
            [("a", 1, 1), ("b", 2, 1), ("", 2, 0), ("a", 5, 2), ("", 7, 0), ("b", 8, 2)],
            [(2, {"a": 1, "b": 2}), (7, {"a": 5})], {"b": 8},
        ),
        (
            [("a", 50, 1), ("", 45, 0), ("b", 47, 1), ("", 49, 0), ("", 55, 0)],
            [(45, {}), (49, {"b": 47}), (55, {"a": 50})], {},
        ),
    ],
)  # fmt: skip
def test_a_position_ends_a_step_of_the_rows_that_it_has_reached(rows, steps, ahead):
    table = Checkpoints(0)
    assert steps_of(table, *rows) == steps
    assert table.position == steps[-1][0]
    assert {place[0]: one.offset for place, one in table.ahead.items()} == ahead


def test_of_the_rows_with_one_key_the_last_counts_as_for_the_table():
    table = Checkpoints(0)
    steps_of(table, ("a", 3, 1), ("", 3, 0), ("a", 3, 9), ("a", 2, 8))
    assert table.live["a", None].applied == 8


def test_what_is_no_row_or_of_another_partition_is_no_checkpoint():
    table = Checkpoints(0)
    assert table.take(record(0, b"nothing", b"key")) is None
    assert table.take(record(1, None, encode_key(RowKey("a", None, 0)))) is None
    steps_of(table, ("a", 1, 1), partition=3)
    assert (table.live, [key.partition for key in table.misplaced]) == ({}, [3])
