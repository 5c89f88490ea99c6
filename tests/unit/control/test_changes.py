"""What each command makes of the manifests, and what it refuses."""

from functools import partial

import pytest

from clipper_agents.control import changes as rules
from clipper_agents.control.change_records import CommittedChange, is_committed, records_of
from clipper_agents.control.errors import RefusedChange
from clipper_agents.control.plan import Plan
from clipper_agents.control.state import ControlState, Manifests
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, PolicySpec, Trial


def model(ref, **fields):
    name, _, version = ref.partition(":")
    return ModelManifest(name=name, version=version, **{"uri": "m:f", **fields})


def registry(*applications, models=("svm:1", "svm:2", "svm:3"), retired=()):
    found = [model(ref, retired=ref in retired) for ref in models]
    return Manifests(applications={each.name: each for each in applications}, models={each.ref: each for each in found})


def digits(*versions, **fields):
    """An application at revision 7: names of candidates, and trials."""
    models = [one for one in versions if isinstance(one, str)]
    trials = [one for one in versions if isinstance(one, Trial)]
    return ApplicationManifest(name="digits", models=models, trials=trials, revision=7, **fields)


SHADOW, HALF = Trial(model="svm:2"), Trial(model="svm:2", share=0.5)
CANARY = Trial(model="svm:2", stage="canary", share=0.1, automatic=True)
BY_HAND = Trial(model="svm:2", stage="canary", share=0.1)
AUTOMATIC, OTHER = Trial(model="svm:2", automatic=True), Trial(model="svm:3")
STEPPED = Trial(model="svm:2", stage="canary", share=0.25)
OLD, SHARED = Trial(model="old:1"), Trial(model="shared:1")
NEW, NEW_CANARY = Trial(model="new:1"), Trial(model="new:1", stage="canary", share=0.05)
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
        (
            digits("svm:1"),
            (rules.deploy, "new:1", "canary", 0.05),
            "canary",
            ["svm:1"],
            [NEW_CANARY],
            [("new:1", False)],
        ),
        (digits("svm:1"), (rules.deploy, "new:1", "live", 1.0), "promote", ["svm:1", "new:1"], [], [("new:1", False)]),
    ],
)
def test_each_command_moves_a_version_and_publishes_what_changes_about_its_hosts(
    before, move, command, models, trials, published
):
    """Those that nobody names any more end; a retired version that comes back has hosts again."""
    there = registry(before, BESIDE, models=("svm:1", "svm:2", "svm:3", "shared:1", "old:1"), retired={"old:1"})
    rule, ref, *more = move
    plan = rule(there, "digits", model(ref) if rule is rules.deploy else ref, *more)
    (edit,) = plan.edits
    assert (edit.command, edit.model, edit.before) == (command, ref, before)
    assert (edit.after.models, edit.after.trials) == (models, trials)
    assert plan.models == tuple(model(ref, retired=retired) for ref, retired in published)


def test_a_version_is_deployed_again_with_more_hosts_and_deleted_when_no_application_uses_it():
    there = registry(digits("svm:1", SHADOW), retired={"svm:3"})
    assert rules.deploy(there, "digits", model("svm:2", replicas=3)) == Plan(models=(model("svm:2", replicas=3),))
    assert rules.delete_model(there, "svm:3") == Plan(withdrawn=("svm:3",))


def test_an_application_is_created_updated_and_deleted():
    (created,) = rules.create(registry(), digits("svm:1")).edits
    fields = {"objective_ms": None, "policy": {"name": "exp4"}}
    (updated,) = rules.update(registry(digits("svm:1")), "digits", fields).edits
    gone = rules.delete(registry(digits("svm:1", SHADOW)), "digits")
    assert (created.command, created.after) == ("create", digits("svm:1"))
    assert (updated.command, updated.after) == (
        "update",
        digits("svm:1", objective_ms=None, policy=PolicySpec(name="exp4")),
    )
    assert (gone.edits[0].command, gone.edits[0].after) == ("delete", None)
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
    rules.promote(published, "digits", "svm:2").edits[0].after.models.append("svm:3")
    assert published.applications["digits"].models == ["svm:1"]


def test_the_application_that_is_meant_is_the_one_that_names_the_version():
    assert rules.application_of(registry(digits("svm:1", SHADOW), BESIDE), "svm:2") == "digits"


def test_a_refused_record_is_replaced_by_what_is_in_force_or_by_nothing():
    state = ControlState(manifests=registry(digits("svm:1")))
    keys = [b"application/digits", b"model/svm:1", b"model/\xff:1", b"nonsense"]
    for offset, key in enumerate(keys):
        state.apply(key, b"{", offset=offset)
    there, plans = state.manifests, [rules.discard(state.manifests, key, at) for at, key in enumerate(keys)]
    assert [edit.after for edit in plans[0].edits] == [there.applications["digits"]]
    assert (plans[1].models, plans[1].edits) == ((there.models["svm:1"],), ())
    assert [plan.discarded for plan in plans[2:]] == [(b"model/\xff:1",), (b"nonsense",)]
    assert not is_committed(CommittedChange(plan=plans[1]), state)
    for key, value in records_of(CommittedChange(plan=plans[3])):
        state.apply(key, value)
    assert sorted(there.unreadable) == ["application/digits", "model/svm:1", "model/\ufffd:1"]
    for key, offset in ((b"nonsense", 3), (b"model/svm:1", 7), (b"", 9)):
        with pytest.raises(RefusedChange, match="status"):
            rules.discard(there, key, offset)
