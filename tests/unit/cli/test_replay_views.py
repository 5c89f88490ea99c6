"""What the commands of the replay print, and what they refuse."""

import pytest
import typer

from clipper_agents.cli.replay_restore import changed_contexts, offsets_of
from clipper_agents.cli.replay_verify import parting_lines, print_verification
from clipper_agents.replay.verdicts import (
    FeedbackAt,
    PartitionVerdict,
    RowMismatch,
    ShownRow,
    Verification,
    shown_row,
)
from clipper_topics.selection_rows import ModelTotalsRecord, SavedRow, SelectionRow

ROW = SelectionRow(version=1, offset=7, applied=2, totals=[ModelTotalsRecord("a:1", 2.0, 0.1 + 0.2, 1.5, 4.0)])


def parting(**changes):
    settings = dict(application="app", context="c", partition=1, last_equal=5, first_different=7, logs=None)
    return RowMismatch(table=shown_row(ROW), **(settings | changes))


def verdict(**changes):
    settings = dict(position=9, behind=0, feedbacks=10, rows=2, checkpoints=5, unproven=0, partition=1, since=0)
    return PartitionVerdict(**(settings | changes))


def printed(capsys, *verdicts):
    equal = not any(one.partings for one in verdicts)
    print_verification(Verification(equal=equal, seconds=0.25, partitions=list(verdicts)))
    return capsys.readouterr().out


def test_a_row_is_shown_with_every_digit():
    assert shown_row(ROW) == ShownRow(
        offset=7,
        applied=2,
        totals={"a:1": {"count": 2.0, "loss": 0.1 + 0.2, "weighted_count": 4.0, "weighted_loss": 1.5}},
    )
    assert any("loss=0.30000000000000004" in line for line in parting_lines(parting()))


def test_an_equal_table_is_one_line_under_the_partitions(capsys):
    text = printed(capsys, verdict(), verdict(partition=0))
    assert "equal: 4 rows of 20 feedbacks in 2 partitions, 0.2 s" in text
    assert "differs" not in text


def test_a_row_that_differs_is_named_with_the_record(capsys):
    between = [FeedbackAt(topic="clipper.feedback", partition=1, offset=7, query_id="q\x1b7")]
    text = printed(capsys, verdict(partings=[parting(feedbacks=1, between=between)]))
    assert "row of app in context c in partition 1 differs" in text
    assert "equal up to feedback offset 5, different at 7" in text
    assert r"clipper.feedback[1] offset 7: query q\x1b7" in text
    assert "logs:  no such row" in text
    assert "1 rows differ" in text


def test_of_many_records_the_number_is_said_and_of_none_that_no_learner_wrote_it():
    between = [FeedbackAt(topic="t", partition=0, offset=1, query_id=None)]
    lines = list(parting_lines(parting(feedbacks=30, between=between)))
    assert "  t[0] offset 1: a restored state" in lines
    assert "  and 29 more" in lines
    assert any("no learner wrote this row" in line for line in parting_lines(parting()))


def test_notes_of_the_learner_have_names():
    assert next(iter(parting_lines(parting(application="", context=None)))).startswith("position in partition 1")
    assert next(iter(parting_lines(parting(application="", context="app")))).startswith("newest restore of app in")


def test_what_could_not_be_verified_is_said(capsys):
    text = printed(capsys, verdict(since=12, unproven=1, unlogged=["app"]))
    assert "verified from feedback offset 12 on; 1 rows stand as they were" in text
    assert "partition 1: rows of app cannot be verified: an older version folded" in text


@pytest.mark.parametrize("text", ["0", "0:1,0:2", "a:1", "0:1,", "0:-1", "0:1:2"])
def test_offsets_that_are_none_are_refused(text):
    with pytest.raises(typer.BadParameter, match="write each partition once"):
        offsets_of(text)


def test_contexts_that_change_are_counted_once():
    before = [SavedRow(partition=0, context=name, totals={"a:1": (1.0, 0.0, 1.0, 0.0)}) for name in ("x", "y", None)]
    after = [before[0], SavedRow(partition=0, context="z", totals={"a:1": (1.0, 0.0, 1.0, 0.0)})]
    assert changed_contexts(before, after) == 2
    assert changed_contexts(before, before) == 0
