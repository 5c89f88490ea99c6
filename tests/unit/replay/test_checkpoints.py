"""A changelog tells steps: each position with the rows that it has reached."""

from builders.kafka import record
from builders.learner_logs import encode

from clipper_agents.replay.checkpoints import Checkpoints
from clipper_topics.selection_rows import RowKey, SelectionRow


def written(table, *rows, partition=0):
    """The steps that rows end: application (empty: the position), offset, and how many feedbacks counted."""
    steps = [
        table.take(record(number, encode(row(offset, applied)), encode(RowKey(name, None, partition))))
        for number, (name, offset, applied) in enumerate(rows)
    ]
    return [(one.position, {place[0]: row.offset for place, row in one.rows.items()}) for one in steps if one]


def row(offset, applied=0):
    return SelectionRow(version=1, offset=offset, applied=applied)


def test_a_position_ends_a_step_of_the_rows_before_it():
    table = Checkpoints(0)
    rows = [("a", 1, 1), ("b", 2, 1), ("", 2, 0), ("a", 5, 2), ("", 7, 0), ("b", 8, 2)]
    assert written(table, *rows) == [(2, {"a": 1, "b": 2}), (7, {"a": 5})]
    assert table.position == 7
    assert [(place[0], one.offset) for place, one in table.ahead.items()] == [("b", 8)]


def test_a_row_beyond_the_position_waits_for_one_that_reaches_it():
    steps = written(Checkpoints(0), ("a", 50, 1), ("", 45, 0), ("b", 47, 1), ("", 49, 0), ("", 55, 0))
    assert steps == [(45, {}), (49, {"b": 47}), (55, {"a": 50})]


def test_of_the_rows_with_one_key_the_last_counts_as_for_the_table():
    table = Checkpoints(0)
    written(table, ("a", 3, 1), ("", 3, 0), ("a", 3, 9), ("a", 2, 8))
    assert table.live["a", None].applied == 8


def test_what_is_no_row_or_of_another_partition_is_no_checkpoint():
    table = Checkpoints(0)
    assert table.take(record(0, b"nothing", b"key")) is None
    assert table.take(record(1, None, encode(RowKey("a", None, 0)))) is None
    written(table, ("a", 1, 1), partition=3)
    assert table.live == {}
    assert [key.partition for key in table.misplaced] == [3]
