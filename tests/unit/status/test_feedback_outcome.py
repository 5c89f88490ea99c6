"""What the changelog says about one feedback, without a Kafka."""

import pytest

from clipper_agents.status.feedback_outcome import FeedbackTrace
from clipper_topics.prediction import REASONS, REFUSALS
from clipper_topics.selection_rows import POSITION, RowKey, config_context, encode_key, encode_row, note_row

ROW, NOTE = RowKey("digits", None, 3), RowKey(*POSITION, 3)


def traced(*records: tuple[RowKey, int]) -> tuple[int, bool]:
    """Position and whether the feedback at offset 41 of partition 3 was learned, after rows with these offsets."""
    trace = FeedbackTrace(3, 41)
    for key, offset in records:
        trace.take(encode_key(key), encode_row(note_row(offset)))
    return trace.position, trace.is_learned


def test_a_row_that_ends_at_the_feedback_was_changed_by_it() -> None:
    assert traced((RowKey("digits", "ada", 3), 41), (NOTE, 41)) == (41, True)
    assert traced((ROW, 40), (NOTE, 40)) == (40, False)


@pytest.mark.parametrize("key", [RowKey("digits", None, 2), RowKey("", config_context("digits"), 3)])
def test_rows_of_other_partitions_and_notes_say_nothing_about_it(key: RowKey) -> None:
    assert traced((key, 41)) == (-1, False)


def test_what_is_no_row_and_what_is_deleted_is_passed_over() -> None:
    trace = FeedbackTrace(3, 41)
    trace.take(b"nonsense", b"nonsense")
    trace.take(encode_key(ROW), None)
    assert (trace.position, trace.is_learned) == (-1, False)


def test_a_refusal_is_one_of_the_reasons() -> None:
    assert REASONS.keys() >= REFUSALS
