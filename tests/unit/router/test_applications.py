"""Applications as the control topic declares them, with the models that can be asked."""

import msgspec
import pytest
from builders.kafka import record

from clipper_agents.router.applications import ApplicationRegistry
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, PolicySpec, Trial


def app(name="app", models=("m:1", "n:1"), **changes):
    return ApplicationManifest(name=name, models=list(models), **changes)


def model(name="m", **changes):
    return ModelManifest(**{"name": name, "uri": "x:y"} | changes)


def take(registry, *manifests):
    for manifest in manifests:
        kind, name = ("model", manifest.ref) if isinstance(manifest, ModelManifest) else ("application", manifest.name)
        registry.take([record(0, msgspec.json.encode(manifest), f"{kind}/{name}".encode(), "control")])


def withdraw(registry, key, value=None):
    registry.take([record(3, value, key, "control")])


def registered(*manifests, reached=(), **settings):
    found = ApplicationRegistry(**settings)
    take(found, *manifests)
    for ref in reached:
        found.reached(ref)
    return found


TRIAL = ("n:1", "canary", 0.25)
TRIED = app(models=["m:1"], trials=[Trial(model="n:1", stage="canary", share=0.25)])
M, N = model("m"), model("n")
OLD_M, OLD_N = model("m", retired=True), model("n", retired=True)
CASES = {
    "neither reached nor declared": ([], [], "m:1 n:1", ((), []), []),
    "not reached": ([M, N], [], "m:1 n:1", ((), []), ["m:1", "n:1"]),
    "not declared": ([M], ["m:1", "n:1"], "m:1 n:1", (("m:1",), []), []),
    "declared and reached": ([M, N], ["m:1", "n:1"], "m:1 n:1", (("m:1",), [TRIAL]), []),
    "no host is ready": ([M, N], ["m:1", "n:1"], "", ((), []), []),
    "one host is ready": ([M, N], ["m:1", "n:1"], "n:1", ((), [TRIAL]), []),
    "in this process": ([model("m", colocated=True), N], ["m:1", "n:1"], "", (("m:1",), []), []),
    "retired": ([OLD_M, OLD_N], ["m:1", "n:1"], "m:1 n:1", ((), []), []),
    "retired before they were reached": ([OLD_M, OLD_N], [], "m:1 n:1", ((), []), []),
    "back": ([OLD_M, OLD_N, M, N], ["m:1", "n:1"], "m:1 n:1", (("m:1",), [TRIAL]), []),
}
"""Declared and reached models, those with a host, candidates and trials of the application, and who is unreached."""


@pytest.mark.parametrize(("models", "reached", "ready", "expected", "unreached"), CASES.values(), ids=CASES)
def test_a_model_is_asked_once_it_is_declared_and_reached_and_ready(models, reached, ready, expected, unreached):
    with_host = {*ready.split()}
    early = registered(TRIED, *models, reached=reached, allowed=["x:"], ready=with_host.__contains__)
    later, hosts = registered(allowed=["x:"], ready=lambda ref: ref in hosts), set()
    for ref in reached:
        later.reached(ref)
    take(later, TRIED, *models)
    hosts |= with_host
    later.resolve()
    for registry in (early, later):
        found = registry.applications.get("app")
        trials = [(one.candidate.ref, one.stage, one.share) for one in found.trials]
        assert ((found.refs, trials), [one.ref for one in registry.unreached]) == (expected, unreached)


def test_an_application_has_what_its_manifest_says():
    said = dict(
        combiner="mean", loss="squared", default_output=7, confidence_threshold=0.5, audit_ratio=0.1, seed=9,
        input_features=4, revision=3,
    )  # fmt: skip
    declared = app(input=InputSpec(dtype="int64", shape=[2]), objective_ms=250, policy=PolicySpec(name="exp4"), **said)
    registry = registered(declared)
    found = registry.applications.get("app")
    assert (found.spec.dtype, found.spec.shape, found.objective_s, found.policy.name) == ("int64", (2,), 0.25, "exp4")
    assert {name: getattr(found, name) for name in said} == said
    take(registry, app(objective_ms=None))
    assert registry.applications.get("app").objective_s is None


def test_a_manifest_that_is_taken_away_takes_its_application_or_candidate_away():
    registry = registered(app(), model("m"), model("n"), reached=("m:1", "n:1"))
    withdraw(registry, b"model/m:1")
    assert registry.applications.get("app").refs == ("n:1",)
    withdraw(registry, b"application/app", b"")
    assert registry.applications == {}


def test_only_applications_that_are_others_than_before_are_said_to_have_changed():
    changed = []
    registry = registered(app(), app("other", ["n:1"]), model("m"), changed=changed.append)
    assert changed == ["app", "other"]
    registry.reached("m:1")
    take(registry, app(), model("m"))
    assert changed[2:] == ["app"]
    withdraw(registry, b"application/other")
    assert changed[3:] == ["other"]


@pytest.mark.parametrize(
    "wrong",
    [
        app(policy=PolicySpec(name="no such policy")),
        app(policy=PolicySpec(name="exp3", parameters={"eta": -1})),
        app(input=InputSpec(dtype="float99")),
        b'{"name": "app", "models": ["m:1"], "objective_ms": 1' + b"0" * 400 + b"}",
    ],
    ids=["policy", "parameter", "dtype", "a number that is no float"],
)
def test_a_manifest_that_cannot_be_resolved_leaves_what_was_there(wrong):
    registry = registered(app(objective_ms=250))
    if isinstance(wrong, bytes):
        withdraw(registry, b"application/app", wrong)
    else:
        take(registry, wrong)
    take(registry, app("other"))
    assert registry.applications.get("app").objective_s == 0.25
    assert registry.applications.get("other") is not None


def digest(**changes):
    return registered(app(), model(**changes), reached=["m:1"]).applications.get("app").candidates[0].digest


def test_other_bytes_of_a_model_are_another_digest_that_outlives_the_process_only_where_they_are_known():
    first, second = "0" * 64, "1" * 64
    assert digest(sha256=first) == digest(sha256=first) != digest(sha256=second)
    registry, digests = registered(app(), reached=["m:1"]), set()
    for changes in ({}, {"uri": "x:z"}, {"parameters": {"x": 1}}, {"sha256": first}):
        take(registry, model(**changes))
        digests.add(registry.applications.get("app").candidates[0].digest)
    assert len({*digests, digest()}) == 5


def test_a_refused_policy_or_colocated_model_leaves_the_one_before_in_force_and_is_told_once(caplog):
    refused = []
    registry = registered(
        app(models=["m:1"]), model(uri="acme.models:f", colocated=True), reached=["m:1"],
        refused=lambda: refused.append(1), allowed=["acme.models:", "/models"],
    )  # fmt: skip
    before = registry.applications.get("app")
    take(
        registry,
        app(models=["m:1"], policy=PolicySpec(name="best")),
        model(uri="os:system", colocated=True),
        model(uri="/etc/passwd", runtime="pickle", colocated=True),
        model(uri="/models/a.skops", runtime="sklearn", colocated=True),
        app("other", models=()),
    )
    assert (registry.applications.get("app"), registry.model("m:1").uri, len(refused)) == (before, "acme.models:f", 4)
    lines = [each.fields for each in caplog.records if each.getMessage() == "manifest refused"]
    assert [line["key"] for line in lines] == ["application/app", *["model/m:1"] * 3]
    assert all(line["offset"] == 0 and line["reason"] for line in lines)
    assert "has no sha256" in lines[-1]["reason"]


@pytest.mark.parametrize(("rules", "accepted"), [(STRICT, False), (FileRules(unpickle=True), True)])
def test_an_unpickled_colocated_model_needs_the_operators_permission(rules, accepted):
    refused = []
    manifest = model(uri="/models/a", runtime="joblib", sha256="0" * 64, colocated=True)
    registry = registered(manifest, refused=lambda: refused.append(1), allowed=["/models"], files=rules)
    assert (registry.model("m:1") is not None, not refused) == (accepted, accepted)


def test_which_model_a_host_loads_is_the_hosts_to_refuse():
    registry = registered(model(runtime="of-a-later-version"))
    assert registry.model("m:1").runtime == "of-a-later-version"
