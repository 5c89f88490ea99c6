"""One step of learning: what counts, what is a duplicate, what is refused, and that doing it again changes nothing."""

import pytest
from builders.feedback import Rows, feedback, logged, prediction
from builders.kafka import record
from builders.query_router import application
from hypothesis import given
from hypothesis import strategies as st

from clipper_agents.feedback.feedback_step import JoinedFeedback, OrphanFeedback, UnusableFeedback, learn
from clipper_agents.feedback.restore_markers import Restored
from clipper_stream.errors import InvalidLabel
from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.logged_records import LoggedRecord
from clipper_topics.prediction import NAMED, Missing, ModelAnswer, PolicyRef
from clipper_topics.restore import Marker
from clipper_topics.selection_rows import (
    NO_ROW,
    ROW_VERSION,
    ConfigStart,
    ModelTotalsRecord,
    SavedRow,
    SelectionRow,
    config_context,
    config_note,
)

APPLICATIONS = {name: application(name, ("a:1", "b:1")) for name in ("app", "other")}
KEY = ("app", None)


def step_of(feedbacks, decisions, applied=None, rows=None, applications=APPLICATIONS, audits=None):
    joined = joined_with(feedbacks, decisions, audits)
    found = Rows() if rows is None else rows
    return learn(joined, Applied(applied or {}), found, lambda name, _: applications.get(name))


class Applied(dict):
    def __missing__(self, offset):
        return None


def joined_with(feedbacks, decisions, audits=None):
    return [
        JoinedFeedback(told, found, decisions.get(found.query_id), (audits or {}).get(found.query_id))
        for told, found in feedbacks
    ]


def losses(row):
    return {totals.model: (totals.count, totals.loss) for totals in row.totals}


def test_a_label_scores_every_model_that_answered():
    decision = logged(0, "q", outputs=(("a:1", 1), ("b:1", 2)))
    step = step_of([feedback(7, "q", label=1)], {"q": decision})
    assert losses(step.rows[KEY]) == {"a:1": (1.0, 0.0), "b:1": (1.0, 1.0)}
    assert (step.rows[KEY].offset, step.rows[KEY].applied) == (7, 1)
    assert (step.applied_feedback, step.outcomes, step.refused) == ({0: 7}, {"applied": 1}, [])


def test_feedback_is_added_to_the_row_as_it_is_stored():
    stored = SelectionRow(
        version=ROW_VERSION, offset=5, applied=4, totals=[ModelTotalsRecord("a:1", 4.0, 2.0, 2.0, 4.0)]
    )
    step = step_of([feedback(7, "q", label=0)], {"q": logged(0, "q")}, rows=Rows({KEY: stored}))
    assert (losses(step.rows[KEY]), step.rows[KEY].applied) == ({"a:1": (5.0, 3.0)}, 5)


def test_the_second_feedback_of_a_query_is_a_duplicate_in_the_same_step_and_later():
    decisions = {"q": logged(0, "q")}
    same = step_of([feedback(7, "q", label=0), feedback(8, "q", label=1)], decisions)
    assert same.outcomes == {"applied": 1, "duplicate": 1}
    later = step_of([feedback(9, "q", label=1)], decisions, applied=same.applied_feedback)
    assert (later.outcomes, later.rows, later.applied_feedback) == ({"duplicate": 1}, {}, {})


def test_a_feedback_that_cannot_be_used_does_not_use_up_its_query():
    decisions = {"q": logged(0, "q", outputs=(("a:1", 1.5),))}
    applications = {"app": application("app", loss="absolute")}
    step = step_of([feedback(7, "q", label="cat"), feedback(8, "q", label=1.5)], decisions, applications=applications)
    assert step.outcomes == {"invalid": 1, "applied": 1}
    assert step.applied_feedback == {0: 8}
    assert isinstance(step.refused[0][1], InvalidLabel)


@pytest.mark.parametrize("label", ["setosa", {"species": "setosa"}, [0]])
def test_a_label_of_another_kind_is_a_dead_letter_and_changes_no_row(label):
    decisions = {"q": logged(0, "q", outputs=(("a:1", 1),))}
    step = step_of([feedback(7, "q", label=label), feedback(8, "q", label=1)], decisions)
    assert step.outcomes == {"invalid": 1, "applied": 1}
    assert losses(step.rows[KEY]) == {"a:1": (1.0, 0.0)}
    ((record, error),) = step.refused
    assert (record.offset, type(error)) == (7, InvalidLabel)
    assert "output 1 are of different kinds: give the label as the models give their outputs" in str(error)


def test_feedback_without_a_decision_is_an_orphan():
    step = step_of([feedback(7, "q")], {})
    assert (step.outcomes, step.applied_feedback) == ({"orphan": 1}, {})
    assert isinstance(step.refused[0][1], OrphanFeedback)


def test_feedback_about_a_decision_of_another_context_is_refused():
    step = step_of([feedback(7, "q", context="somebody")], {"q": logged(0, "q")})
    assert (step.outcomes, step.rows, step.applied_feedback) == ({"invalid": 1}, {}, {})
    assert isinstance(step.refused[0][1], UnusableFeedback)


@pytest.mark.parametrize(
    "decision",
    [
        logged(0, "q", policy=PolicyRef(name=NAMED)),
        logged(0, "q", outputs=(), policy=None, default=True, reason="arrived_late"),
        logged(0, "q", application="gone"),
    ],
    ids=["models were named", "nothing was decided", "the application is gone"],
)
def test_feedback_that_teaches_nothing_counts_all_the_same(decision):
    step = step_of([feedback(7, "q")], {"q": decision})
    assert (step.outcomes, step.rows, step.applied_feedback) == ({"unlearned": 1}, {}, {0: 7})


def test_a_default_answer_teaches_that_its_lone_model_did_not_answer():
    missing = [Missing(model="a", version="1", propensity=0.5, reason="late")]
    decision = logged(
        0, "q", outputs=(), output=None, default=True, reason="late", missing=missing, served_propensity=0.5
    )
    step = step_of([feedback(7, "q", loss=0.25)], {"q": decision})
    (totals,) = step.rows[KEY].totals
    assert (totals.model, totals.loss, totals.weighted_loss) == ("a:1", 1.0, 2.0)


def test_contexts_have_rows_of_their_own():
    decisions = {name: logged(at, name, context=name) for at, name in enumerate(("x", "y"))}
    step = step_of([feedback(7, "x"), feedback(8, "y")], decisions)
    assert {key: row.offset for key, row in step.rows.items()} == {("app", "x"): 7, ("app", "y"): 8}


def test_a_query_of_several_rows_is_scored_by_the_mean_of_its_rows():
    several = prediction("q", output=None)
    several.outputs, several.models[0].outputs, several.models[0].output = [1, 2], [1, 2], None
    step = step_of(
        [feedback(7, "q", label=[1, 3])], {"q": LoggedRecord(0, codec.predictions.encode(several), msgpack=False)}
    )
    assert losses(step.rows[KEY]) == {"a:1": (1.0, 0.5)}


feedbacks = st.lists(
    st.tuples(st.sampled_from(["q1", "q2", "q3", "q4", "q5", "none"]), st.integers(0, 1)), min_size=1, max_size=20
)
DECISIONS = {
    f"q{number}": logged(
        number, f"q{number}", context=None if number < 3 else f"c{number % 2}", outputs=(("a:1", 0), ("b:1", 1))
    )
    for number in range(1, 6)
}


@given(given_=feedbacks, data=st.data())
def test_a_step_that_was_cut_in_two_and_is_done_again_leaves_the_same_rows(given_, data):
    """Some of its rows were stored, its position was not: the next process folds the same feedback again."""
    records = [feedback(offset, name, label=label) for offset, (name, label) in enumerate(given_)]
    whole = step_of(records, DECISIONS)
    stored = Rows({key: row for key, row in whole.rows.items() if data.draw(st.booleans())})
    again = step_of(records, DECISIONS, rows=stored)
    assert {**stored, **again.rows} == whole.rows
    assert again.applied_feedback == whole.applied_feedback


@given(given_=feedbacks, data=st.data())
def test_steps_of_any_length_fold_like_one(given_, data):
    records = [feedback(offset, name, label=label) for offset, (name, label) in enumerate(given_)]
    whole, rows, applied, at = step_of(records, DECISIONS), Rows(), {}, 0
    while at < len(records):
        size = data.draw(st.integers(1, len(records) - at))
        step = step_of(records[at : at + size], DECISIONS, applied, rows)
        rows.update(step.rows)
        applied |= step.applied_feedback
        at += size
    assert (rows, applied) == (whole.rows, whole.applied_feedback)


def restored(offset, *rows, declared=0, name="app"):
    saved = [SavedRow(partition=0, context=context, totals=totals) for context, totals in rows]
    return record(offset), Restored(marker=Marker(application=name, rows=saved), declared=declared)


def marked(markers, rows, feedbacks=(), decisions=None):
    return learn(
        joined_with(feedbacks, decisions or {}), Applied(), Rows(rows), lambda name, _: APPLICATIONS.get(name),
        markers,
        lambda name: [key for key in rows if key[0] == name],
    )  # fmt: skip


def row(offset, applied, **sums):
    totals = [ModelTotalsRecord(f"{model}:1", *values) for model, values in sums.items()]
    return SelectionRow(version=ROW_VERSION, offset=offset, applied=applied, totals=totals)


def test_a_marker_sets_every_row_of_its_application_and_leaves_what_counted():
    rows = {KEY: row(3, 4, a=(4.0, 1.0, 1.0, 4.0)), ("app", "c"): row(4, 1), ("other", None): row(5, 2)}
    step = marked([restored(9, (None, {"b:1": (2.0, 1.0, 8.0, 3.0)}), ("new", {}), declared=7)], rows)
    assert step.rows == {
        KEY: row(9, 4, b=(2.0, 1.0, 3.0, 8.0)),
        ("app", "c"): row(9, 1),
        ("app", "new"): row(9, 0),
        ("", "app"): row(9, 7),
    }
    assert (step.outcomes, step.refused, step.applied_feedback) == ({"restored": 1}, [], {})


def test_feedback_of_the_same_step_counts_on_its_side_of_the_marker():
    decisions = {name: logged(at, name) for at, name in enumerate(("before", "after"))}
    feedbacks = [feedback(7, "before", label=0), feedback(9, "after", label=0)]
    step = marked([restored(8, (None, {"a:1": (4.0, 0.0, 4.0, 0.0)}))], {}, feedbacks, decisions)
    assert losses(step.rows[KEY]) == {"a:1": (5.0, 1.0)}
    assert (step.rows[KEY].applied, step.applied_feedback) == (2, {0: 7, 1: 9})


def test_a_restore_counts_once_even_as_first_record_of_the_control_topic():
    first = marked([restored(5, declared=0)], {KEY: row(3, 4, a=(4.0, 1.0, 1.0, 4.0))})
    assert first.outcomes == {"restored": 1}
    again = marked([restored(6, (None, {"a:1": (1.0, 1.0, 1.0, 1.0)}), declared=0)], first.rows)
    assert (again.outcomes, again.rows, again.refused) == ({"duplicate": 1}, {}, [])


def test_the_later_declared_restore_wins_in_any_order_of_markers():
    early, late = (("c", {"a:1": (1.0, 0.0, 1.0, 0.0)}), ("c", {"a:1": (2.0, 0.0, 2.0, 0.0)}))
    there = marked([restored(5, early, declared=1), restored(6, late, declared=2)], {})
    back = marked([restored(5, late, declared=2), restored(6, early, declared=1)], {})
    assert there.rows["app", "c"].totals == back.rows["app", "c"].totals
    ((refused, error),) = back.refused
    assert (refused.offset, "a later restore of app" in str(error)) == (6, True)


def test_a_step_with_markers_cut_behind_its_notes_is_done_again():
    markers = [restored(5, (None, {"a:1": (1.0, 0.0, 1.0, 0.0)}), declared=1), restored(6, declared=2)]
    whole = marked(markers, {KEY: row(3, 4)})
    again = marked(markers, whole.rows)
    assert (again.rows, again.refused) == ({}, [])


def test_a_restore_of_an_application_that_is_not_declared_counts():
    assert marked([restored(5, name="gone")], {("gone", None): row(3, 4, a=(1.0, 1.0, 1.0, 1.0))}).rows == {
        ("gone", None): row(5, 4),
        ("", "gone"): row(5, 0),
    }


def test_an_audit_scores_what_it_names_and_leaves_what_the_prediction_says_as_it_is():
    told = [ModelAnswer(model=name, version="1", propensity=0.25, output=9, served=False) for name in ("a", "b")]
    late = [Missing(model="c", version="1", propensity=0.5, reason="late", served=False)]
    audit = LoggedRecord(0, codec.audits.encode(Audit(query_id="q", models=told, missing=late)), msgpack=False)
    step = step_of([feedback(7, "q", label=1)], {"q": logged(0, "q")}, audits={"q": audit})
    totals = {one.model: (one.count, one.loss, one.weighted_loss) for one in step.rows[KEY].totals}
    assert totals == {"a:1": (1.0, 0.0, 0.0), "b:1": (1.0, 1.0, 4.0)}


def test_a_policy_is_noted_behind_a_note_that_a_crash_left_ahead_of_the_position():
    note = ("", config_context("app"))
    rows = Rows({note: config_note(NO_ROW, ConfigStart(5, 1))})
    changed = {"app": application("app", ("a:1", "b:1"), learning_config=2)}
    by_name, chosen = logged(0, "a", policy=PolicyRef(name=NAMED)), logged(1, "b")
    feedbacks = [feedback(4, "a", 1), feedback(6, "b", 1)]
    step = step_of(feedbacks, {"a": by_name, "b": chosen}, rows=rows, applications=changed)
    assert step.rows[note].configs == (ConfigStart(5, 1), ConfigStart(6, 2))
