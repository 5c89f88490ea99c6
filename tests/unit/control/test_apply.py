"""What is published of a configuration, and how the difference is shown."""

import hashlib
from dataclasses import replace

import pytest

from clipper_agents.control.apply import plan_declared, split_known, with_digests
from clipper_agents.control.change_records import numbered
from clipper_agents.control.manifest_text import plan_lines
from clipper_agents.control.plan import Plan
from clipper_agents.control.state import ControlState, Manifests
from clipper_stream.errors import InvalidSetting
from clipper_topics.change import Change
from clipper_topics.manifests import ApplicationManifest, ModelManifest

SVM, TREE = ModelManifest(name="svm", uri="m:f"), ModelManifest(name="tree", uri="m:g")
DIGITS = ApplicationManifest(name="digits", models=["svm:1"], revision=4)
SHOP = ApplicationManifest(name="shop", models=["tree:1"], revision=2)
THERE = Manifests(applications={"digits": DIGITS, "shop": SHOP}, models={"svm:1": SVM, "tree:1": TREE})
UNREVISED = ApplicationManifest(name="digits", models=["svm:1"])


def test_what_is_there_already_is_not_written_again_whatever_its_revision():
    assert plan_declared(THERE, [UNREVISED], [SVM]) == Plan()


def test_only_what_differs_is_written():
    changed = ApplicationManifest(name="digits", models=["svm:1"], objective_ms=None)
    bigger = ModelManifest(name="tree", uri="m:g", replicas=2)
    plan = plan_declared(THERE, [changed], [SVM, bigger])
    assert [(edit.application, edit.command, edit.before) for edit in plan.edits] == [("digits", "update", DIGITS)]
    assert plan.models == (bigger,)


def test_with_prune_what_is_not_named_is_taken_away():
    plan = plan_declared(THERE, [UNREVISED], [SVM], prune=True)
    assert [(edit.application, edit.command, edit.after) for edit in plan.edits] == [("shop", "delete", None)]
    assert plan.withdrawn == ("tree:1",)


def test_a_record_that_everybody_refuses_is_written_again():
    broken = {"application/digits": "not JSON", "model/svm:1": "not JSON"}
    plan = plan_declared(replace(THERE, unreadable=broken), [UNREVISED], [SVM])
    assert ([edit.application for edit in plan.edits], plan.models) == (["digits"], (SVM,))


def test_a_manifest_s_own_revision_counts_where_it_is_higher_than_the_next():
    newer = ApplicationManifest(name="digits", models=["svm:1"], revision=9)
    assert (numbered(newer, 4).revision, numbered(newer, 12).revision) == (9, 13)


def test_the_difference_of_each_manifest_is_shown_field_by_field():
    changed = ApplicationManifest(name="digits", models=["svm:1", "tree:1"], objective_ms=None)
    new = ModelManifest(name="new", uri="m:h", colocated=True)
    assert list(plan_lines(ControlState(manifests=THERE), plan_declared(THERE, [changed], [SVM, new], prune=True))) == [
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


def change(revision, command, before=None, after=None, model=None):
    return Change(
        application="digits", revision=revision, command=command, model=model, at_ms=revision, by="ada",
        before=before, after=after,
    )  # fmt: skip


def test_what_the_topic_never_knew_is_new_and_what_was_changed_or_taken_away_is_not():
    gone = ModelManifest(name="gone", uri="m:f")
    before = ApplicationManifest(name="digits", models=["svm:1", "gone:1"], revision=3)
    history = {3: change(3, "create", after=before), 4: change(4, "retire", before, DIGITS, "gone:1")}
    deleted = {2: change(2, "delete", ApplicationManifest(name="old", models=["svm:1"]))}
    state = ControlState(manifests=THERE, changes={"digits": history, "old": deleted})
    new = ModelManifest(name="svm", version="2", uri="m:f")
    declared = [
        before,
        ApplicationManifest(name="old", models=["svm:1"]),
        ApplicationManifest(name="b", models=["svm:2"]),
    ]
    plan = plan_declared(state.manifests, declared, [SVM, gone, new])
    added, rest = split_known(plan, state)
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


def forest(path, **changes):
    return ModelManifest(name="forest", runtime="sklearn", uri=str(path), **changes)


def test_a_model_file_is_published_with_the_digest_that_it_has_here(tmp_path):
    path = tmp_path / "forest.skops"
    path.write_bytes(b"trees")
    python = ModelManifest(name="a", uri="m:f")
    stated = forest("/elsewhere", sha256="0" * 64)
    assert with_digests([forest(path), python, stated]) == [
        forest(path, sha256=hashlib.sha256(b"trees").hexdigest()), python, stated
    ]  # fmt: skip


def test_a_model_file_that_is_not_here_needs_its_digest_stated(tmp_path):
    with pytest.raises(
        InvalidSetting, match=r"model 'forest:1' has no sha256, and its file cannot .*: state the digest"
    ):
        with_digests([forest(tmp_path / "forest.skops")])


def test_a_model_file_that_is_not_here_any_more_has_the_digest_that_is_published(tmp_path):
    published = forest("/elsewhere", sha256="0" * 64, retired=True)
    (model,) = with_digests([forest(tmp_path / "forest.skops")], {"forest:1": published})
    assert model == forest(tmp_path / "forest.skops", sha256="0" * 64)
