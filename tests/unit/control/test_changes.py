import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from clipper_agents.control import changes as rules
from clipper_agents.control.apply import plan_declared, split_known, with_digests
from clipper_agents.control.change_records import is_committed, numbered
from clipper_agents.control.errors import RefusedChange
from clipper_agents.control.manifest_text import plan_lines
from clipper_agents.control.plan import Plan, unsigned
from clipper_agents.control.rollback import plan_rollback
from clipper_agents.control.state import ControlState, Manifests, RefusedRecord
from clipper_stream.errors import InvalidSetting
from clipper_topics.change import Change
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, PolicySpec, Trial
from clipper_topics.selection_rows import SavedRow


def model(ref, **fields):
    name, _, version = ref.partition(":")
    return ModelManifest(name=name, version=version, **{"uri": "m:f", **fields})


def registry(*applications, models=("svm:1", "svm:2", "svm:3"), retired=()):
    found = [model(ref, retired=ref in retired) for ref in models]
    return Manifests(applications={each.name: each for each in applications}, models={each.ref: each for each in found})


def digits(*versions, revision=7, **fields):
    models = [one for one in versions if isinstance(one, str)]
    trials = [one for one in versions if isinstance(one, Trial)]
    return ApplicationManifest(name="digits", models=models, trials=trials, revision=revision, **fields)


SHADOW, HALF = Trial(model="svm:2"), Trial(model="svm:2", share=0.5)
CANARY = Trial(model="svm:2", stage="canary", share=0.1, automatic=True)
BY_HAND = Trial(model="svm:2", stage="canary", share=0.1)
AUTOMATIC, OTHER = Trial(model="svm:2", automatic=True), Trial(model="svm:3")
STEPPED = Trial(model="svm:2", stage="canary", share=0.25)
OLD, SHARED = Trial(model="old:1"), Trial(model="shared:1")
NEW, TRIED = Trial(model="new:1"), Trial(model="new:1", stage="canary", share=0.05)
BESIDE = ApplicationManifest(name="other", models=["shared:1"])
canary_by_hand = partial(rules.canary, automatic=False)


@pytest.mark.parametrize(
    ("before", "move", "command", "models", "trials", "published"),
    [
        (digits("svm:1"), (rules.shadow, "svm:2", 0.5), "shadow", ["svm:1"], [HALF], []),
        (digits("svm:1"), (rules.shadow, "old:1"), "shadow", ["svm:1"], [OLD], [("old:1", False)]),
        (digits("svm:1", AUTOMATIC, OTHER), (rules.canary, "svm:2", 0.1), "canary", ["svm:1"], [CANARY, OTHER], []),
        (digits("svm:1", AUTOMATIC), (canary_by_hand, "svm:2", 0.1), "canary", ["svm:1"], [BY_HAND], []),
        (digits("svm:1", BY_HAND), (rules.step, "svm:2", 0.25), "step", ["svm:1"], [STEPPED], []),
        (digits("svm:1", CANARY, OTHER), (rules.promote, "svm:2"), "promote", ["svm:1", "svm:2"], [OTHER], []),
        (digits("svm:1", SHADOW), (rules.abort, "svm:2"), "abort", ["svm:1"], [], [("svm:2", True)]),
        (digits("svm:1", SHARED), (rules.abort, "shared:1"), "abort", ["svm:1"], [], []),
        (digits("svm:1", "svm:2"), (rules.retire, "svm:2"), "retire", ["svm:1"], [], [("svm:2", True)]),
        (digits("svm:1", CANARY), (rules.retire, "svm:2"), "retire", ["svm:1"], [], [("svm:2", True)]),
        (digits("svm:1"), (rules.deploy, "new:1", "shadow", 1.0), "shadow", ["svm:1"], [NEW], [("new:1", False)]),
        (digits("svm:1"), (rules.deploy, "new:1", "canary", 0.05), "canary", ["svm:1"], [TRIED], [("new:1", False)]),
        (digits("svm:1"), (rules.deploy, "new:1", "live", 1.0), "promote", ["svm:1", "new:1"], [], [("new:1", False)]),
    ],
)
def test_each_command_moves_a_version_and_publishes_its_hosts(before, move, command, models, trials, published):
    there = registry(before, BESIDE, models=("svm:1", "svm:2", "svm:3", "shared:1", "old:1"), retired={"old:1"})
    rule, ref, *more = move
    plan = rule(there, "digits", model(ref) if rule is rules.deploy else ref, *more)
    (edit,) = plan.changes
    assert (edit.command, edit.model, edit.before) == (command, ref, before)
    assert (edit.after.models, edit.after.trials) == (models, trials)
    assert plan.models == tuple(model(ref, retired=retired) for ref, retired in published)


def test_a_version_is_deployed_again_with_more_hosts_and_deleted_when_no_application_uses_it():
    there = registry(digits("svm:1", SHADOW), retired={"svm:3"})
    assert rules.deploy(there, "digits", model("svm:2", replicas=3)) == Plan(models=(model("svm:2", replicas=3),))
    assert rules.delete_model(there, "svm:3") == Plan(withdrawn=("svm:3",))


def test_an_application_is_created_updated_and_deleted():
    (created,) = rules.create(registry(), digits("svm:1")).changes
    fields = {"objective_ms": None, "policy": {"name": "exp4"}}
    (updated,) = rules.update(registry(digits("svm:1")), "digits", fields).changes
    expected = digits("svm:1", objective_ms=None, policy=PolicySpec(name="exp4"))
    gone = rules.delete(registry(digits("svm:1", SHADOW)), "digits")
    assert (created.command, created.after) == ("create", digits("svm:1"))
    assert (updated.command, updated.after) == ("update", expected)
    assert (gone.changes[0].command, gone.changes[0].after) == ("delete", None)
    assert gone.models == (model("svm:1", retired=True), model("svm:2", retired=True))


THERE = registry(digits("svm:1", CANARY), retired={"svm:3"})


@pytest.mark.parametrize(
    "again",
    [
        lambda: rules.canary(THERE, "digits", "svm:2", 0.1),
        lambda: rules.promote(THERE, "digits", "svm:1"),
        lambda: rules.retire(THERE, "digits", "svm:3"),
        lambda: rules.deploy(THERE, "digits", model("svm:2"), "canary", 0.1, automatic=True),
        lambda: rules.deploy(THERE, "digits", model("svm:1"), "live"),
        lambda: rules.create(THERE, digits("svm:1", CANARY)),
        lambda: rules.update(THERE, "digits", {"loss": "zero_one"}),
    ],
    ids=["canary", "promote", "retire", "deploy", "deploy live", "create", "update"],
)
def test_a_command_that_finds_things_as_it_wants_them_changes_nothing(again):
    assert again() == Plan()


OTHER_ROWS = registry(digits("svm:1", input=InputSpec(shape=[64])), models=())
OTHER_ROWS.models["svm:1"] = model("svm:1", input=InputSpec(shape=[64]))
OTHER_ROWS.models["svm:2"] = model("svm:2")
ALONE = registry(digits("svm:1"))
TWICE = registry(digits("svm:1"), ApplicationManifest(name="other", models=["svm:1"]))
TWO = registry(digits("svm:1", Trial(model="svm:3", stage="canary", share=0.6)))


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (lambda: rules.shadow(THERE, "nobody", "svm:2"), "no application 'nobody': there are digits"),
        (lambda: rules.shadow(THERE, "digits", "svm:9"), "model 'svm:9' is not declared; declared: svm:1"),
        (lambda: rules.shadow(THERE, "digits", "svm:1"), "svm:1 is live at application digits"),
        (lambda: rules.shadow(THERE, "digits", "svm:3", 1.5), "Expected float <= 1.0"),
        (lambda: rules.shadow(OTHER_ROWS, "digits", "svm:2"), r"takes float32\[64\]: make them equal"),
        (lambda: rules.canary(TWO, "digits", "svm:2", 0.5), "canaries answer 1.1 of the queries together"),
        (lambda: rules.step(ALONE, "digits", "svm:2", 0.25), "svm:2 is not on trial at application digits, there is"),
        (lambda: rules.promote(THERE, "digits", "svm:3"), "svm:3 is not on trial at application digits"),
        (lambda: rules.abort(THERE, "digits", "svm:1"), "svm:1 is live at application digits, not on trial"),
        (lambda: rules.abort(THERE, "digits", "svm:3"), "there is nothing to abort"),
        (lambda: rules.retire(THERE, "digits", "svm:1"), "svm:1 is the last live version of application digits"),
        (lambda: rules.retire(THERE, "digits", "svm:9"), "svm:9 is none of application digits's versions: are svm:1"),
        (lambda: rules.deploy(THERE, "digits", model("svm:2", uri="m:other")), "another uri: .* under another version"),
        (lambda: rules.delete_model(THERE, "svm:2"), "is used by .* digits: `clipper-stream model retire svm:2 --appl"),
        (lambda: rules.delete_model(ALONE, "svm:9"), "no model svm:9: there are svm:1"),
        (lambda: rules.create(THERE, digits("svm:3")), "application digits exists, at revision 7"),
        (lambda: rules.create(registry(), digits("svm:9")), "'svm:9' is not declared"),
        (lambda: rules.create(registry(), digits()), "name at least one model"),
        (lambda: rules.update(THERE, "digits", {"models": []}), "models: use one of input, rollout, keep_best"),
        (lambda: rules.update(THERE, "digits", {"loss": "no"}), "application digits: Invalid enum value 'no'"),
        (lambda: rules.update(THERE, "digits", {"policy": {"name": "no"}}), "'no'"),
        (lambda: rules.delete(THERE, "nobody"), "no application 'nobody'"),
        (lambda: rules.application_of(TWICE, "svm:1"), "digits, other name svm:1: say"),
        (lambda: rules.application_of(ALONE, "svm:3"), "no application names svm:3"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_do(refused, said):
    with pytest.raises(RefusedChange, match=said):
        refused()


def test_a_plan_is_never_made_of_what_is_published():
    """Lists of manifests are shared by nobody: a plan that was refused later has changed nothing."""
    published = registry(digits("svm:1", SHADOW))
    rules.promote(published, "digits", "svm:2").changes[0].after.models.append("svm:3")
    assert published.applications["digits"].models == ["svm:1"]


def test_the_application_that_is_meant_is_the_one_that_names_the_version():
    assert rules.application_of(registry(digits("svm:1", SHADOW), BESIDE), "svm:2") == "digits"


# --- configurations ---------------------------------------------------------------------------------------------------
SVM, TREE = ModelManifest(name="svm", uri="m:f"), ModelManifest(name="tree", uri="m:g")
BIGGER = ModelManifest(name="tree", uri="m:g", replicas=2)
DIGITS, UNREVISED, UNBOUND = digits("svm:1", revision=4), digits("svm:1"), digits("svm:1", objective_ms=None)
SHOP = ApplicationManifest(name="shop", models=["tree:1"], revision=2)
DECLARED = Manifests(applications={"digits": DIGITS, "shop": SHOP}, models={"svm:1": SVM, "tree:1": TREE})
REFUSED = [
    RefusedRecord(kind=key.partition("/")[0], key=key, offset=0, reason="no JSON")
    for key in ("application/digits", "model/svm:1")
]
BROKEN = replace(DECLARED, unreadable={one.key: one for one in REFUSED})
DELETED = Plan(changes=(unsigned(SHOP, None, "delete"),), withdrawn=("tree:1",))


def updated(after):
    return (unsigned(DIGITS, after, "update"),)


@pytest.mark.parametrize(
    ("there", "application", "models", "prune", "plan"),
    [
        (DECLARED, UNREVISED, [SVM], False, Plan()),
        (DECLARED, UNBOUND, [SVM, BIGGER], False, Plan(changes=updated(UNBOUND), models=(BIGGER,))),
        (DECLARED, UNREVISED, [SVM], True, DELETED),
        (BROKEN, UNREVISED, [SVM], False, Plan(changes=updated(UNREVISED), models=(SVM,))),
    ],
    ids=["what is there already", "what differs", "what is not named goes with prune", "what everybody refuses"],
)
def test_only_what_differs_from_what_is_in_force_is_written(there, application, models, prune, plan):
    assert plan_declared(there, [application], models, prune=prune) == plan


def test_a_model_counts_as_written_once_no_record_of_its_key_is_refused():
    written = Plan(models=(SVM,))
    state = ControlState(manifests=Manifests(models={"svm:1": SVM}))
    assert is_committed(written, state)
    state.apply(b"model/svm:1", b"{")
    assert (is_committed(written, state), state.manifests.models["svm:1"]) == (False, SVM)


def test_a_manifest_s_own_revision_counts_where_it_is_higher_than_the_next():
    newer = digits("svm:1", revision=9)
    assert (numbered(newer, 4).revision, numbered(newer, 12).revision) == (9, 13)


def golden(name):
    return (Path(__file__).parents[2] / f"golden/{name}.txt").read_text()


def test_the_difference_of_each_manifest_is_shown_field_by_field():
    both = digits("svm:1", "tree:1", objective_ms=None)
    new = ModelManifest(name="new", uri="m:h", colocated=True)
    plan = plan_declared(DECLARED, [both], [SVM, new], prune=True)
    assert "".join(f"{line}\n" for line in plan_lines(ControlState(manifests=DECLARED), plan)) == golden("plan")


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
    state = ControlState(manifests=DECLARED, changes={"digits": history, "old": {2: change("delete", old)}})
    declared = [before, old, ApplicationManifest(name="b", models=["svm:2"])]
    added, rest = split_known(plan_declared(state.manifests, declared, [SVM, gone, new]), state)
    assert ([edit.application for edit in added.changes], added.models) == (["b"], (new,))
    assert ([edit.application for edit in rest.changes], rest.models) == (["digits", "old"], (gone,))
    assert "".join(f"{line}\n" for line in plan_lines(state, rest)) == golden("plan-known")


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
SECOND = digits("svm:1", BY_HAND, revision=2)
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
        (published(THIRD), HISTORY, 1, FIRST, (ENDED,), (3, 2), ROWS),
        (published(FOURTH, **{"svm:2": ENDED}), HISTORY | RETIRED, None, THIRD, (MODELS["svm:2"],), (4,), None),
        (published(None), HISTORY | GONE, None, THIRD, (), (4,), None),
        (published(SECOND), {2: HISTORY[2]}, 1, FIRST, (ENDED,), (2,), ROWS),
    ],
    ids=["the last change", "all since a revision", "hosts come back", "a deletion", "what a later change remembers"],
)
def test_a_rollback_undoes_changes_with_the_state_before_them(there, history, to, after, models, undone, rows):
    plan, found = plan_rollback(there, history, "digits", to)
    before = there.applications.get("digits")
    assert plan.changes == (unsigned(before, after, "rollback"),)
    assert (plan.models, found, found[-1].rows) == (models, tuple(history[at] for at in undone), rows)
    assert plan_rollback(published(THIRD), HISTORY, "digits", 3) == (Plan(), ()), "one is there"


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
