"""Rollback goes along the history, and says what it undoes."""

import pytest

from clipper_agents.control.errors import RefusedChange
from clipper_agents.control.plan import Plan
from clipper_agents.control.rollback import plan_rollback
from clipper_agents.control.state import Manifests
from clipper_topics.change import Change
from clipper_topics.manifests import ApplicationManifest, ModelManifest, Trial
from clipper_topics.selection_rows import SavedRow

SVM = {f"svm:{version}": ModelManifest(name="svm", version=version, uri="m:f") for version in "12"}
ROWS = [SavedRow(partition=0, totals={"svm:1": (1.0, 0.5, 1.0, 0.5)})]


def digits(revision, *models, trials=()):
    return ApplicationManifest(name="digits", revision=revision, models=list(models), trials=list(trials))


FIRST = digits(1, "svm:1")
SECOND = digits(2, "svm:1", trials=[Trial(model="svm:2", stage="canary", share=0.1)])
THIRD = digits(3, "svm:1", "svm:2")


def change(command, before, after, rows=None):
    revision = after.revision if after else before.revision + 1
    return Change(
        application="digits",
        revision=revision,
        command=command,
        at_ms=0,
        by="ada",
        before=before,
        after=after,
        rows=rows,
    )


HISTORY = {
    1: change("create", None, FIRST),
    2: change("canary", FIRST, SECOND, ROWS),
    3: change("promote", SECOND, THIRD),
}


def published(application, **models):
    return Manifests(applications={"digits": application} if application else {}, models=SVM | models)


def test_the_last_change_is_undone():
    rollback = plan_rollback(published(THIRD), HISTORY, "digits")
    (edit,) = rollback.plan.edits
    assert (edit.command, edit.before, edit.after) == ("rollback", THIRD, SECOND)
    assert rollback.undone == (HISTORY[3],)
    assert rollback.rows is None
    assert rollback.plan.models == (), "still on trial"


def test_all_changes_since_a_revision_are_undone_with_the_state_before_them():
    rollback = plan_rollback(published(THIRD), HISTORY, "digits", 1)
    assert rollback.plan.edits[0].after == FIRST
    assert rollback.undone == (HISTORY[3], HISTORY[2])
    assert rollback.rows == tuple(ROWS)
    (unneeded,) = rollback.plan.models
    assert (unneeded.ref, unneeded.retired) == ("svm:2", True)


def test_models_that_are_named_again_have_hosts_again():
    retired = ModelManifest(name="svm", version="2", uri="m:f", retired=True)
    history = HISTORY | {4: change("retire", THIRD, digits(4, "svm:1"))}
    rollback = plan_rollback(published(digits(4, "svm:1"), **{"svm:2": retired}), history, "digits")
    assert rollback.plan.models == (SVM["svm:2"],)


def test_a_deleted_application_comes_back():
    history = HISTORY | {4: change("delete", THIRD, None)}
    rollback = plan_rollback(published(None), history, "digits")
    assert (rollback.plan.edits[0].before, rollback.plan.edits[0].after) == (None, THIRD)


def test_a_revision_that_only_a_later_change_remembers_is_found():
    """A manifest that somebody wrote without a command has no change of its own."""
    rollback = plan_rollback(published(SECOND), {2: HISTORY[2]}, "digits", 1)
    assert rollback.plan.edits[0].after == FIRST


def test_going_back_to_where_one_is_changes_nothing():
    assert plan_rollback(published(THIRD), HISTORY, "digits", 3).plan == Plan()


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (lambda: plan_rollback(published(FIRST), {}, "digits"), "'digits' has no history"),
        (lambda: plan_rollback(published(THIRD), HISTORY, "digits", 9), "has no revision 9; it has 1, 2, 3"),
        (
            lambda: plan_rollback(published(FIRST), {1: HISTORY[1]}, "digits"),
            "revision 1 of application digits created it",
        ),
        (
            lambda: plan_rollback(published(digits(5, "svm:1")), HISTORY, "digits"),
            "is at revision 5, which its history does not have: .* --to-revision, for example 3",
        ),
        (
            lambda: plan_rollback(Manifests(applications={"digits": THIRD}), HISTORY, "digits"),
            "model 'svm:1' is not declared",
        ),
    ],
)
def test_what_cannot_be_undone_is_refused_with_what_to_do(refused, said):
    with pytest.raises(RefusedChange, match=said):
        refused()
