"""What each command makes of the manifests, and what it refuses."""

import pytest

from clipper_agents.control import changes as rules
from clipper_agents.control.change_records import CommittedChange, is_committed, records_of
from clipper_agents.control.errors import RefusedChange
from clipper_agents.control.plan import Plan, refs_of
from clipper_agents.control.state import ControlState, Manifests
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, Trial


def model(ref, **fields):
    name, _, version = ref.partition(":")
    return ModelManifest(name=name, version=version, **{"uri": "m:f", **fields})


def registry(*applications, models=("svm:1", "svm:2", "svm:3"), retired=()):
    found = [model(ref, retired=ref in retired) for ref in models]
    return Manifests(applications={each.name: each for each in applications}, models={each.ref: each for each in found})


def digits(*models, trials=(), **fields):
    return ApplicationManifest(name="digits", models=list(models), trials=list(trials), revision=7, **fields)


def after(plan):
    (edit,) = plan.edits
    return edit.after


SHADOW = Trial(model="svm:2")
CANARY = Trial(model="svm:2", stage="canary", share=0.1, automatic=True)


def test_a_shadow_is_tried_beside_the_candidates():
    plan = rules.shadow(registry(digits("svm:1")), "digits", "svm:2", 0.5)
    assert after(plan).trials == [Trial(model="svm:2", share=0.5)]
    assert (plan.edits[0].command, plan.edits[0].model, plan.edits[0].before) == ("shadow", "svm:2", digits("svm:1"))
    assert plan.models == ()


def test_a_shadow_becomes_a_canary_in_its_place_and_keeps_what_moves_it_on():
    there = [Trial(model="svm:2", automatic=True), Trial(model="svm:3")]
    plan = rules.canary(registry(digits("svm:1", trials=there)), "digits", "svm:2", 0.1)
    assert after(plan).trials == [CANARY, Trial(model="svm:3")]
    by_hand = rules.canary(registry(digits("svm:1", trials=there)), "digits", "svm:2", 0.1, automatic=False)
    assert after(by_hand).trials[0].automatic is False


def test_a_step_is_a_canary_that_says_so_and_only_of_what_is_on_trial():
    plan = rules.step(registry(digits("svm:1", trials=[CANARY])), "digits", "svm:2", 0.25)
    assert (plan.edits[0].command, after(plan).trials[0].share) == ("step", 0.25)
    with pytest.raises(RefusedChange, match="svm:2 is not on trial at application digits, there is none"):
        rules.step(registry(digits("svm:1")), "digits", "svm:2", 0.25)


def test_a_promoted_trial_is_the_last_candidate():
    plan = rules.promote(registry(digits("svm:1", trials=[CANARY, Trial(model="svm:3")])), "digits", "svm:2")
    assert (after(plan).models, after(plan).trials) == (["svm:1", "svm:2"], [Trial(model="svm:3")])


def test_an_aborted_trial_is_retired_when_nobody_else_names_it():
    plan = rules.abort(registry(digits("svm:1", trials=[SHADOW])), "digits", "svm:2")
    assert after(plan).trials == []
    assert plan.models == (model("svm:2", retired=True),)
    other = ApplicationManifest(name="other", models=["svm:2"])
    assert rules.abort(registry(digits("svm:1", trials=[SHADOW]), other), "digits", "svm:2").models == ()


@pytest.mark.parametrize("there", [digits("svm:1", "svm:2"), digits("svm:1", trials=[CANARY])], ids=["live", "trial"])
def test_a_retired_version_is_named_no_more_and_its_hosts_end(there):
    plan = rules.retire(registry(there), "digits", "svm:2")
    assert refs_of(after(plan)) == ["svm:1"]
    assert plan.models == (model("svm:2", retired=True),)


def test_a_retired_version_that_comes_back_has_hosts_again():
    plan = rules.shadow(registry(digits("svm:1"), retired={"svm:2"}), "digits", "svm:2")
    assert plan.models == (model("svm:2"),)


@pytest.mark.parametrize(
    ("stage", "share", "models", "trials"),
    [
        ("shadow", 1.0, ["svm:1"], [Trial(model="new:1")]),
        ("canary", 0.05, ["svm:1"], [Trial(model="new:1", stage="canary", share=0.05)]),
        ("live", 1.0, ["svm:1", "new:1"], []),
    ],
)
def test_a_deployed_version_is_published_and_begins_at_its_stage(stage, share, models, trials):
    plan = rules.deploy(registry(digits("svm:1")), "digits", model("new:1"), stage, share)
    assert (after(plan).models, after(plan).trials) == (models, trials)
    assert plan.models == (model("new:1"),)


def test_a_version_is_deployed_again_with_more_hosts_but_not_with_other_code():
    published = registry(digits("svm:1", trials=[SHADOW]))
    plan = rules.deploy(published, "digits", model("svm:2", replicas=3))
    assert (plan.edits, plan.models) == ((), (model("svm:2", replicas=3),))
    with pytest.raises(RefusedChange, match=r"svm:2 is published already with another uri: .* under another version"):
        rules.deploy(published, "digits", model("svm:2", uri="m:other"))


def test_a_version_is_deleted_when_no_application_uses_it_and_can_then_be_another():
    published = registry(digits("svm:1", trials=[SHADOW]))
    with pytest.raises(RefusedChange, match=r"svm:2 is used by .* digits: `clipper-stream model retire svm:2 --appl"):
        rules.delete_model(published, "svm:2")
    plan = rules.delete_model(registry(digits("svm:1"), retired={"svm:2"}), "svm:2")
    assert (plan.edits, plan.models, plan.withdrawn) == ((), (), ("svm:2",))
    with pytest.raises(RefusedChange, match="no model svm:9: there are svm:1"):
        rules.delete_model(registry(digits("svm:1")), "svm:9")


def test_an_application_is_created_updated_and_deleted():
    published = registry()
    assert after(rules.create(published, digits("svm:1"))) == digits("svm:1")
    plan = rules.update(registry(digits("svm:1")), "digits", {"objective_ms": None, "policy": {"name": "exp4"}})
    assert (after(plan).objective_ms, after(plan).policy.name, after(plan).models) == (None, "exp4", ["svm:1"])
    gone = rules.delete(registry(digits("svm:1", trials=[SHADOW])), "digits")
    assert (gone.edits[0].after, gone.edits[0].command) == (None, "delete")
    assert gone.models == (model("svm:1", retired=True), model("svm:2", retired=True))


THERE = registry(digits("svm:1", trials=[CANARY]), retired={"svm:3"})


@pytest.mark.parametrize(
    "again",
    [
        lambda: rules.canary(THERE, "digits", "svm:2", 0.1),
        lambda: rules.promote(THERE, "digits", "svm:1"),
        lambda: rules.retire(THERE, "digits", "svm:3"),
        lambda: rules.deploy(THERE, "digits", model("svm:2"), "canary", 0.1, automatic=True),
        lambda: rules.deploy(THERE, "digits", model("svm:1"), "live"),
        lambda: rules.create(THERE, digits("svm:1", trials=[CANARY])),
        lambda: rules.update(THERE, "digits", {"loss": "zero_one"}),
    ],
    ids=["canary", "promote", "retire", "deploy", "deploy live", "create", "update"],
)
def test_a_command_that_finds_things_as_it_wants_them_changes_nothing(again):
    assert again() == Plan()


OTHER_ROWS = registry(digits("svm:1", input=InputSpec(shape=[64])), models=())
OTHER_ROWS.models["svm:1"] = model("svm:1", input=InputSpec(shape=[64]))
OTHER_ROWS.models["svm:2"] = model("svm:2")
TWO = registry(digits("svm:1", trials=[Trial(model="svm:3", stage="canary", share=0.6)]))


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (lambda: rules.shadow(THERE, "nobody", "svm:2"), "no application 'nobody': there are digits"),
        (lambda: rules.shadow(THERE, "digits", "svm:9"), "model 'svm:9' is not declared; declared: svm:1"),
        (lambda: rules.shadow(THERE, "digits", "svm:1"), "svm:1 is live at application digits"),
        (lambda: rules.shadow(THERE, "digits", "svm:3", 1.5), "Expected float <= 1.0"),
        (
            lambda: rules.shadow(OTHER_ROWS, "digits", "svm:2"),
            r"model 'svm:2' takes input float32, the application takes float32\[64\]: make them equal",
        ),
        (lambda: rules.canary(TWO, "digits", "svm:2", 0.5), "canaries answer 1.1 of the queries together"),
        (lambda: rules.promote(THERE, "digits", "svm:3"), "svm:3 is not on trial at application digits"),
        (lambda: rules.abort(THERE, "digits", "svm:1"), "svm:1 is live at application digits, not on trial"),
        (lambda: rules.abort(THERE, "digits", "svm:3"), "there is nothing to abort"),
        (lambda: rules.retire(THERE, "digits", "svm:1"), "svm:1 is the last live version of application digits"),
        (lambda: rules.retire(THERE, "digits", "svm:9"), "svm:9 is none of application digits's versions: are svm:1"),
        (lambda: rules.create(THERE, digits("svm:3")), "application digits exists, at revision 7"),
        (lambda: rules.create(registry(), digits("svm:9")), "'svm:9' is not declared"),
        (lambda: rules.create(registry(), digits()), "name at least one model"),
        (lambda: rules.update(THERE, "digits", {"models": []}), "models: use one of input, rollout, keep_best"),
        (lambda: rules.update(THERE, "digits", {"loss": "no"}), "application digits: Invalid enum value 'no'"),
        (lambda: rules.update(THERE, "digits", {"policy": {"name": "no"}}), "'no'"),
        (lambda: rules.delete(THERE, "nobody"), "no application 'nobody'"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_what_to_do(refused, said):
    with pytest.raises(RefusedChange, match=said):
        refused()


def test_a_plan_is_never_made_of_what_is_published():
    """Lists of manifests are shared by nobody: a plan that was refused later has changed nothing."""
    published = registry(digits("svm:1", trials=[SHADOW]))
    plan = rules.promote(published, "digits", "svm:2")
    after(plan).models.append("svm:3")
    assert published.applications["digits"].models == ["svm:1"]


def test_the_application_that_is_meant_is_the_one_that_names_the_version():
    other = ApplicationManifest(name="other", models=["svm:1"])
    assert rules.application_of(registry(digits("svm:1", trials=[SHADOW]), other), "svm:2") == "digits"
    with pytest.raises(RefusedChange, match="applications digits, other name svm:1: say which is meant"):
        rules.application_of(registry(digits("svm:1"), other), "svm:1")
    with pytest.raises(RefusedChange, match="no application names svm:3"):
        rules.application_of(registry(digits("svm:1")), "svm:3")


def test_a_refused_record_is_replaced_by_what_is_in_force_or_by_nothing():
    state = ControlState(manifests=registry(digits("svm:1")))
    keys = [b"application/digits", b"model/svm:1", b"model/\xff:1", b"nonsense"]
    for offset, key in enumerate(keys):
        state.apply(key, b"{", offset=offset)
    there, plans = state.manifests, [rules.discard(state.manifests, key, at) for at, key in enumerate(keys)]
    assert after(plans[0]) == there.applications["digits"]
    assert (plans[1].models, plans[1].edits) == ((there.models["svm:1"],), ())
    assert [plan.discarded for plan in plans[2:]] == [(b"model/\xff:1",), (b"nonsense",)]
    assert not is_committed(CommittedChange(plan=plans[1]), state)
    for key, value in records_of(CommittedChange(plan=plans[3])):
        state.apply(key, value)
    assert sorted(there.unreadable) == ["application/digits", "model/svm:1", "model/\ufffd:1"]
    for key, offset in ((b"nonsense", 3), (b"model/svm:1", 7), (b"", 9)):
        with pytest.raises(RefusedChange, match="status"):
            rules.discard(there, key, offset)
