"""What a step says beside the rows that it changes; who is scored is told in `replay/test_log_stories.py`."""

import pytest
from builders.feedback import Rows, feedback, logged
from builders.kafka import record
from builders.query_router import application

from clipper_agents.feedback.feedback_step import (
    JoinedFeedback,
    OrphanFeedback,
    Restored,
    UnusableFeedback,
    learn,
)
from clipper_stream.errors import InvalidLabel
from clipper_topics.prediction import NAMED, PolicyRef
from clipper_topics.restore import Marker
from clipper_topics.selection_rows import NO_ROW, ConfigStart, SavedRow, config_context, config_note, note_row

APP = application("app", ("a:1", "b:1"))
NOTE = ("", config_context("app"))
SAVED = [SavedRow(partition=0, totals={"b:1": (2.0, 1.0, 8.0, 3.0)})]


def step_of(*told, rows=(), markers=(), app=APP, **decisions):
    """A step over feedback about these decisions, by query id."""
    joined = [JoinedFeedback(one, said, decisions.get(said.query_id)) for one, said in told]
    unapplied = {decision.offset: None for decision in decisions.values()}
    found = Rows(rows)
    return learn(
        joined, unapplied, found, lambda *_: app, markers, lambda name: [key for key in found if key[0] == name]
    )


def marker(offset, declared, rows=SAVED):
    return record(offset), Restored(marker=Marker(application="app", rows=rows), declared=declared)


@pytest.mark.parametrize(
    ("said", "outcome", "error", "reason"),
    [
        ({"query_id": "p"}, "orphan", OrphanFeedback, "no decision about query 'p' in partition 0"),
        ({"query_id": "p", "application": "app"}, "orphan", OrphanFeedback, "query 'p' of application 'app'"),
        ({"query_id": "q", "context": "somebody"}, "invalid", UnusableFeedback, "somebody"),
        ({"query_id": "q", "label": "setosa"}, "invalid", InvalidLabel, "give the label as the models give"),
    ],
)
def test_what_is_refused_says_why_and_changes_nothing(said, outcome, error, reason):
    step = step_of(feedback(7, **said), q=logged(0, "q"))
    ((refused, found),) = step.refused
    assert (refused.offset, type(found), step.outcomes) == (7, error, {outcome: 1})
    assert reason in str(found)
    assert (step.applied_feedback, step.rows.keys() - {NOTE}) == ({}, set())


def test_what_is_used_is_noted_with_its_decision_whether_or_not_it_teaches():
    by_name = logged(1, "p", policy=PolicyRef(name=NAMED))
    step = step_of(feedback(7, "q", label=1), feedback(8, "p"), feedback(9, "p"), q=logged(0, "q"), p=by_name)
    assert step.applied_feedback == {0: 7, 1: 8}
    assert (step.outcomes, step.refused) == ({"applied": 1, "unlearned": 1, "duplicate": 1}, [])
    (totals,) = step.rows["app", None].totals
    assert (step.rows["app", None].offset, totals.model, totals.count, totals.loss) == (7, "a:1", 1.0, 0.0)


def test_a_restore_counts_once_even_as_first_record_of_the_control_topic():
    first = step_of(markers=[marker(5, declared=0)], rows={("app", "c"): note_row(3, 4)})
    assert (first.outcomes, first.rows["", "app"]) == ({"restored": 1}, note_row(5, 0))
    assert (first.rows["app", "c"], first.rows["app", None].applied) == (note_row(5, 4), 0)
    again = step_of(markers=[marker(6, declared=0, rows=[])], rows=first.rows)
    assert (again.outcomes, again.rows, again.refused) == ({"duplicate": 1}, {}, [])


def test_a_policy_is_noted_behind_a_note_that_a_crash_left_ahead_of_the_position():
    rows = {NOTE: config_note(NO_ROW, ConfigStart(5, 1))}
    by_name = logged(0, "a", policy=PolicyRef(name=NAMED))
    changed = application("app", ("a:1", "b:1"), learning_config=2)
    step = step_of(feedback(4, "a"), feedback(6, "b"), rows=rows, app=changed, a=by_name, b=logged(1, "b"))
    assert step.rows[NOTE].configs == (ConfigStart(5, 1), ConfigStart(6, 2))
