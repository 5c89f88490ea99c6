"""What is published of a configuration, how the difference is shown, and what a rollback along the history undoes."""

import hashlib
from dataclasses import replace

import pytest

from clipper_agents.control.apply import plan_declared, split_known, with_digests
from clipper_agents.control.change_records import numbered
from clipper_agents.control.errors import RefusedChange
from clipper_agents.control.manifest_text import plan_lines
from clipper_agents.control.plan import Edit, Plan
from clipper_agents.control.rollback import plan_rollback
from clipper_agents.control.state import ControlState, Manifests
from clipper_stream.errors import InvalidSetting
from clipper_topics.change import Change
from clipper_topics.manifests import ApplicationManifest, ModelManifest, Trial
from clipper_topics.selection_rows import SavedRow


def digits(*models, revision=1, **fields):
    return ApplicationManifest(name="digits", models=list(models), revision=revision, **fields)


SVM, TREE = ModelManifest(name="svm", uri="m:f"), ModelManifest(name="tree", uri="m:g")
BIGGER = ModelManifest(name="tree", uri="m:g", replicas=2)
DIGITS, UNREVISED, OTHER = digits("svm:1", revision=4), digits("svm:1"), digits("svm:1", objective_ms=None)
SHOP = ApplicationManifest(name="shop", models=["tree:1"], revision=2)
THERE = Manifests(applications={"digits": DIGITS, "shop": SHOP}, models={"svm:1": SVM, "tree:1": TREE})
BROKEN = replace(THERE, unreadable={"application/digits": "not JSON", "model/svm:1": "not JSON"})
DELETED = Plan(edits=(Edit(application="shop", command="delete", before=SHOP),), withdrawn=("tree:1",))


def updated(after):
    return (Edit(application="digits", command="update", before=DIGITS, after=after),)


@pytest.mark.parametrize(
    ("there", "application", "models", "prune", "plan"),
    [
        (THERE, UNREVISED, [SVM], False, Plan()),
        (THERE, OTHER, [SVM, BIGGER], False, Plan(edits=updated(OTHER), models=(BIGGER,))),
        (THERE, UNREVISED, [SVM], True, DELETED),
        (BROKEN, UNREVISED, [SVM], False, Plan(edits=updated(UNREVISED), models=(SVM,))),
    ],
    ids=["what is there already", "what differs", "what is not named goes with prune", "what everybody refuses"],
)
def test_only_what_differs_from_what_is_in_force_is_written(there, application, models, prune, plan):
    assert plan_declared(there, [application], models, prune=prune) == plan


def test_a_manifest_s_own_revision_counts_where_it_is_higher_than_the_next():
    newer = digits("svm:1", revision=9)
    assert (numbered(newer, 4).revision, numbered(newer, 12).revision) == (9, 13)


def test_the_difference_of_each_manifest_is_shown_field_by_field():
    both = digits("svm:1", "tree:1", objective_ms=None)
    new = ModelManifest(name="new", uri="m:h", colocated=True)
    assert list(plan_lines(ControlState(manifests=THERE), plan_declared(THERE, [both], [SVM, new], prune=True))) == [
        "+ model new:1",
        '    name      "new"',
        '    uri       "m:h"',
        "    colocated true",
        "~ application digits",
        '    models       ["svm:1"] -> ["svm:1","tree:1"]',
        "    objective_ms 100 -> null",
        "- application shop",
        "- model tree:1",
    ]


def change(command, before=None, after=None, rows=None, model=None):
    revision = after.revision if after else before.revision + 1
    return Change(
        application="digits", revision=revision, command=command, model=model, at_ms=0, by="ada", before=before,
        after=after, rows=rows,
    )  # fmt: skip


def test_what_the_topic_never_knew_is_new_and_what_was_changed_or_taken_away_is_not():
    gone, new = ModelManifest(name="gone", uri="m:f"), ModelManifest(name="svm", version="2", uri="m:f")
    before, old = digits("svm:1", "gone:1", revision=3), ApplicationManifest(name="old", models=["svm:1"])
    history = {3: change("create", after=before), 4: change("retire", before, DIGITS, model="gone:1")}
    state = ControlState(manifests=THERE, changes={"digits": history, "old": {2: change("delete", old)}})
    declared = [before, old, ApplicationManifest(name="b", models=["svm:2"])]
    added, rest = split_known(plan_declared(state.manifests, declared, [SVM, gone, new]), state)
    assert ([edit.application for edit in added.edits], added.models) == (["b"], (new,))
    assert ([edit.application for edit in rest.edits], rest.models) == (["digits", "old"], (gone,))
    assert list(plan_lines(state, rest)) == [
        "+ model gone:1",
        '    name     "gone"',
        '    uri      "m:f"',
        "    # digits revision 4, retire gone:1 by ada",
        "~ application digits",
        '    models ["svm:1"] -> ["svm:1","gone:1"]',
        "    # digits revision 4, retire gone:1 by ada",
        "+ application old",
        '    name     "old"',
        '    models   ["svm:1"]',
        '    rollout  {"steps":[0.05,0.25,0.5]}',
        "    # digits revision 2, delete by ada",
    ]


def test_a_model_file_has_the_digest_that_is_stated_or_that_it_has_here_or_that_is_published(tmp_path):
    def forest(path, **changes):
        return ModelManifest(name="forest", runtime="sklearn", uri=str(path), **changes)

    path, away = tmp_path / "forest.skops", forest(tmp_path / "away.skops")
    path.write_bytes(b"trees")
    python, stated = ModelManifest(name="a", uri="m:f"), forest("/elsewhere", sha256="0" * 64)
    digest = hashlib.sha256(b"trees").hexdigest()
    assert with_digests([forest(path), python, stated]) == [forest(path, sha256=digest), python, stated]
    with pytest.raises(InvalidSetting, match=r"'forest:1' has no sha256, .*: state the digest"):
        with_digests([away])
    published = {"forest:1": forest("/elsewhere", sha256="0" * 64, retired=True)}
    assert with_digests([away], published) == [forest(away.uri, sha256="0" * 64)]


# --- rollback ---------------------------------------------------------------------------------------------------------
MODELS = {f"svm:{version}": ModelManifest(name="svm", version=version, uri="m:f") for version in "12"}
ENDED = ModelManifest(name="svm", version="2", uri="m:f", retired=True)
ROWS = [SavedRow(partition=0, totals={"svm:1": (1.0, 0.5, 1.0, 0.5)})]
FIRST, THIRD, FOURTH = digits("svm:1", revision=1), digits("svm:1", "svm:2", revision=3), digits("svm:1", revision=4)
SECOND = digits("svm:1", revision=2, trials=[Trial(model="svm:2", stage="canary", share=0.1)])
HISTORY = {
    1: change("create", None, FIRST),
    2: change("canary", FIRST, SECOND, ROWS),
    3: change("promote", SECOND, THIRD),
}
RETIRED, GONE = {4: change("retire", THIRD, FOURTH)}, {4: change("delete", THIRD)}


def published(application, **models):
    return Manifests(applications={"digits": application} if application else {}, models=MODELS | models)


@pytest.mark.parametrize(
    ("there", "history", "to", "after", "models", "undone", "rows"),
    [
        (published(THIRD), HISTORY, None, SECOND, (), (3,), None),
        (published(THIRD), HISTORY, 1, FIRST, (ENDED,), (3, 2), tuple(ROWS)),
        (published(FOURTH, **{"svm:2": ENDED}), HISTORY | RETIRED, None, THIRD, (MODELS["svm:2"],), (4,), None),
        (published(None), HISTORY | GONE, None, THIRD, (), (4,), None),
        (published(SECOND), {2: HISTORY[2]}, 1, FIRST, (ENDED,), (2,), tuple(ROWS)),
    ],
    ids=["the last change", "all since a revision", "hosts come back", "a deletion", "what a later change remembers"],
)
def test_a_rollback_undoes_changes_with_the_state_before_them(there, history, to, after, models, undone, rows):
    found = plan_rollback(there, history, "digits", to)
    before = there.applications.get("digits")
    assert found.plan.edits == (Edit(application="digits", command="rollback", before=before, after=after),)
    assert (found.plan.models, found.undone, found.rows) == (models, tuple(history[at] for at in undone), rows)


def test_going_back_to_where_one_is_changes_nothing():
    assert plan_rollback(published(THIRD), HISTORY, "digits", 3).plan == Plan()


@pytest.mark.parametrize(
    ("there", "history", "to", "said"),
    [
        (published(FIRST), {}, None, "'digits' has no history"),
        (published(THIRD), HISTORY, 9, "has no revision 9; it has 1, 2, 3"),
        (published(FIRST), {1: HISTORY[1]}, None, "revision 1 of application digits created it"),
        (published(digits("svm:1", revision=5)), HISTORY, None, "is at revision 5, .* --to-revision, for example 3"),
        (Manifests(applications={"digits": THIRD}), HISTORY, None, "model 'svm:1' is not declared"),
    ],
)
def test_what_cannot_be_undone_is_refused_with_what_to_do(there, history, to, said):
    with pytest.raises(RefusedChange, match=said):
        plan_rollback(there, history, "digits", to)
