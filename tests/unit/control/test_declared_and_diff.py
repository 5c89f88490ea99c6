"""What a file changes, and how that is shown."""

from clipper_agents.control.declared import as_they_are, declared, numbered
from clipper_agents.control.diff import plan_lines
from clipper_agents.control.plan import Plan
from clipper_agents.control.state import Manifests
from clipper_topics.manifests import ApplicationManifest, ModelManifest

SVM, TREE = ModelManifest(name="svm", uri="m:f"), ModelManifest(name="tree", uri="m:g")
DIGITS = ApplicationManifest(name="digits", models=["svm:1"], revision=4)
SHOP = ApplicationManifest(name="shop", models=["tree:1"], revision=2)
THERE = Manifests(applications={"digits": DIGITS, "shop": SHOP}, models={"svm:1": SVM, "tree:1": TREE})
UNREVISED = ApplicationManifest(name="digits", models=["svm:1"])


def test_what_is_there_already_is_not_written_again_whatever_its_revision():
    assert declared(THERE, [UNREVISED], [SVM]) == Plan()


def test_only_what_differs_is_written():
    changed = ApplicationManifest(name="digits", models=["svm:1"], objective_ms=None)
    bigger = ModelManifest(name="tree", uri="m:g", replicas=2)
    plan = declared(THERE, [changed], [SVM, bigger])
    assert [(edit.application, edit.command, edit.before) for edit in plan.edits] == [("digits", "update", DIGITS)]
    assert plan.models == (bigger,)


def test_with_prune_what_is_not_named_is_taken_away():
    plan = declared(THERE, [UNREVISED], [SVM], prune=True)
    assert [(edit.application, edit.command, edit.after) for edit in plan.edits] == [("shop", "delete", None)]
    assert plan.withdrawn == ("tree:1",)


def test_a_record_that_everybody_refuses_is_written_again():
    plan = declared(THERE, [UNREVISED], [SVM], broken={"application/digits", "model/svm:1"})
    assert ([edit.application for edit in plan.edits], plan.models) == (["digits"], (SVM,))


def test_a_program_s_own_revision_counts_where_it_is_new():
    newer = ApplicationManifest(name="digits", models=["svm:1"], revision=9)
    assert as_they_are(THERE, [newer], []).edits[0].after == newer
    assert as_they_are(THERE, [UNREVISED], [SVM]) == Plan()
    assert (numbered(newer, 4).revision, numbered(newer, 12).revision) == (9, 13)


def test_the_difference_of_each_manifest_is_shown_field_by_field():
    changed = ApplicationManifest(name="digits", models=["svm:1", "tree:1"], objective_ms=None)
    new = ModelManifest(name="new", uri="m:h", colocated=True)
    assert list(plan_lines(THERE, declared(THERE, [changed], [SVM, new], prune=True))) == [
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
