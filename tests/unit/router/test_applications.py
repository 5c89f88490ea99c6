"""Applications as the control topic declares them, with the models that can be asked."""

import msgspec
import pytest
from builders.kafka import record

from clipper_agents.router.applications import ApplicationRegistry
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, PolicySpec, Trial


@pytest.fixture
def changed():
    return []


@pytest.fixture
def registry(changed):
    return ApplicationRegistry(changed.append)


def app(name="app", models=("m:1", "n:1"), **changes):
    return ApplicationManifest(name=name, models=list(models), **changes)


def model(name="m", **changes):
    return ModelManifest(name=name, uri="x:y", **changes)


def take(registry, *manifests):
    records = []
    for manifest in manifests:
        kind = "application" if isinstance(manifest, ApplicationManifest) else "model"
        name = manifest.name if kind == "application" else manifest.ref
        records.append(record(0, msgspec.json.encode(manifest), f"{kind}/{name}".encode(), "control"))
    registry.take(records)


def test_a_model_is_a_candidate_once_it_is_declared_and_reached(registry):
    take(registry, app(), model("m"))
    assert registry.application("app").refs == ()
    assert [one.ref for one in registry.unreached] == ["m:1"]
    registry.reached("m:1")
    assert registry.application("app").refs == ("m:1",)
    registry.reached("n:1")
    take(registry, model("n"))
    assert registry.application("app").refs == ("m:1", "n:1")


def test_an_application_has_what_its_manifest_says(registry):
    take(
        registry,
        app(
            input=InputSpec(dtype="int64", shape=[2]), objective_ms=250, revision=3, combiner="mean", loss="squared",
            default_output=7, confidence_threshold=0.5, audit_ratio=0.1, seed=9, input_features=4,
            policy=PolicySpec(name="exp4"),
        ),
    )  # fmt: skip
    found = registry.application("app")
    assert (found.spec.dtype, found.spec.shape, found.objective_s, found.revision) == ("int64", (2,), 0.25, 3)
    assert (found.combiner, found.loss, found.default_output, found.policy.name) == ("mean", "squared", 7, "exp4")
    assert (found.confidence_threshold, found.audit_ratio, found.seed) == (0.5, 0.1, 9)
    assert found.input_features == 4
    take(registry, app(objective_ms=None))
    assert registry.application("app").objective_s is None


def test_a_manifest_that_is_taken_away_takes_its_application_or_candidate_away(registry):
    take(registry, app(), model("m"), model("n"))
    registry.reached("m:1")
    registry.reached("n:1")
    registry.take([record(3, None, b"model/m:1", "control")])
    assert registry.application("app").refs == ("n:1",)
    registry.take([record(4, b"", b"application/app", "control")])
    assert registry.application("app") is None
    assert registry.applications == []


def test_only_applications_that_are_others_than_before_are_said_to_have_changed(registry, changed):
    take(registry, app(), app("other", ["n:1"]), model("m"))
    assert changed == ["app", "other"]
    registry.reached("m:1")
    assert changed == ["app", "other", "app"]
    take(registry, app(), model("m"))
    assert changed == ["app", "other", "app"]
    registry.take([record(4, b"", b"application/other", "control")])
    assert changed[3:] == ["other"]


@pytest.mark.parametrize(
    "wrong",
    [
        app(policy=PolicySpec(name="no such policy")),
        app(policy=PolicySpec(name="exp3", parameters={"eta": -1})),
        app(input=InputSpec(dtype="float99")),
    ],
    ids=["policy", "parameter", "dtype"],
)
def test_a_manifest_that_cannot_be_resolved_leaves_what_was_there(registry, wrong):
    take(registry, app(objective_ms=250))
    take(registry, wrong, app("other"))
    assert registry.application("app").objective_s == 0.25
    assert registry.application("other") is not None


def test_records_that_are_no_manifests_are_ignored(registry):
    junk = [
        record(0, b"{", b"application/app"),
        record(1, b"{}", None),
        record(2, b"\xff", b"\xff"),
        record(3, b"1", b"model/m"),
    ]
    registry.take(junk)
    take(registry, app())
    assert registry.application("app") is not None


def test_other_bytes_of_a_model_are_another_digest(registry):
    digests = set()
    for changes in ({}, {"sha256": "0" * 64}, {"sha256": "1" * 64}, {"parameters": {"x": 1}}):
        take(registry, app(), model("m", **changes))
        registry.reached("m:1")
        digests.add(registry.application("app").candidates[0].digest)
    assert len(digests) == 4


def test_a_digest_outlives_the_process_only_where_the_bytes_are_known(registry):
    digests = {known: set() for known in (True, False)}
    for known in (True, False):
        for one in (ApplicationRegistry(), ApplicationRegistry()):
            take(one, app(), model("m", sha256="0" * 64 if known else None))
            one.reached("m:1")
            digests[known].add(one.application("app").candidates[0].digest)
    assert {known: len(found) for known, found in digests.items()} == {True: 1, False: 2}


def test_a_refused_policy_or_colocated_model_leaves_the_one_before_in_force(changed, caplog):
    refused = []
    one = ApplicationRegistry(changed.append, refused=lambda: refused.append(1), allowed=["acme.models:", "/models"])
    take(one, app(models=["m:1"]), ModelManifest(name="m", uri="acme.models:f", colocated=True))
    one.reached("m:1")
    before = one.application("app")
    take(one, app(models=["m:1"], policy=PolicySpec(name="best")))
    take(one, ModelManifest(name="m", uri="os:system", colocated=True))
    take(one, ModelManifest(name="m", uri="/etc/passwd", runtime="pickle", colocated=True))
    take(one, ModelManifest(name="m", uri="/models/a.skops", runtime="sklearn", colocated=True))
    assert one.application("app") == before
    assert one.model("m:1").uri == "acme.models:f"
    assert len(refused) == 4
    lines = [each.fields for each in caplog.records if each.getMessage() == "manifest refused"]
    assert [line["key"] for line in lines] == ["application/app", *["model/m:1"] * 3]
    assert all(line["offset"] == 0 and line["reason"] for line in lines)
    assert "has no sha256" in lines[-1]["reason"]


def test_an_unpickled_colocated_model_needs_the_operators_permission(changed):
    manifest = ModelManifest(name="m", uri="/models/a", runtime="joblib", sha256="0" * 64, colocated=True)
    for rules, accepted in ((STRICT, False), (FileRules(unpickle=True), True)):
        refused = []
        one = ApplicationRegistry(
            changed.append, refused=lambda refused=refused: refused.append(1), allowed=["/models"], files=rules
        )
        take(one, manifest)
        assert (one.model("m:1") is not None, not refused) == (accepted, accepted)


def test_a_refused_manifest_is_told_once_however_many_records_follow(changed):
    refused = []
    one = ApplicationRegistry(changed.append, refused=lambda: refused.append(1))
    take(one, app(policy=PolicySpec(name="best")))
    for number in range(3):
        take(one, app(f"other{number}", models=()))
    assert refused == [1]


def test_which_model_a_host_loads_is_the_hosts_to_refuse(registry):
    take(registry, model("m", runtime="of-a-later-version"))
    assert registry.model("m:1").runtime == "of-a-later-version"


def test_a_number_that_is_no_float_does_not_end_the_process(registry):
    registry.reached("m:1")
    take(registry, model(), app(objective_ms=500))
    before = registry.application("app")
    value = b'{"name": "app", "models": ["m:1"], "objective_ms": 1' + b"0" * 400 + b"}"
    registry.take([record(9, value, b"application/app")])
    assert registry.application("app") == before


def trial(model, stage="shadow", share=1.0):
    return Trial(model=model, stage=stage, share=share)


def tried(registry):
    return [(one.candidate.ref, one.stage, one.share) for one in registry.application("app").trials]


def test_a_version_is_on_trial_once_it_is_declared_and_reached(registry):
    take(registry, app(models=["m:1"], trials=[trial("n:1", "canary", 0.25)]), model("m"), model("n"))
    registry.reached("m:1")
    assert (registry.application("app").refs, tried(registry)) == (("m:1",), [])
    registry.reached("n:1")
    assert (registry.application("app").refs, tried(registry)) == (("m:1",), [("n:1", "canary", 0.25)])


def test_a_retired_version_is_not_asked_and_can_come_back(registry):
    take(registry, app(models=["m:1"], trials=[trial("n:1")]), model("m", retired=True), model("n", retired=True))
    assert registry.unreached == []
    registry.reached("m:1")
    registry.reached("n:1")
    assert (registry.application("app").refs, tried(registry)) == ((), [])
    take(registry, model("m"), model("n"))
    assert (registry.application("app").refs, [ref for ref, *_ in tried(registry)]) == (("m:1",), ["n:1"])


def test_a_version_counts_while_a_host_of_it_is_ready(changed):
    ready = set()
    one = ApplicationRegistry(changed.append, ready=ready.__contains__)
    take(one, app(models=["m:1"], trials=[trial("n:1")]), model("m"), model("n"))
    one.reached("m:1")
    one.reached("n:1")
    assert (one.application("app").refs, tried(one)) == ((), [])
    ready.update(("m:1", "n:1"))
    one.resolve()
    assert (one.application("app").refs, [ref for ref, *_ in tried(one)]) == (("m:1",), ["n:1"])
    ready.remove("m:1")
    one.resolve()
    assert one.application("app").refs == ()


def test_a_colocated_version_is_ready_when_it_is_reached(changed):
    one = ApplicationRegistry(changed.append, ready=lambda _: False, allowed=["x:"])
    take(one, app(models=["m:1"]), model("m", colocated=True))
    one.reached("m:1")
    assert one.application("app").refs == ("m:1",)
