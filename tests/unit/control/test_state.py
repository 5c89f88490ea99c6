import json

import msgspec
import pytest
from builders.kafka import record
from builders.messages import DRIFT

from clipper_agents.control.state import ControlState, RefusedRecord
from clipper_agents.rollout.comparison_spec import comparison_specs
from clipper_agents.status.deployment_view import DeploymentView
from clipper_stream.errors import UnknownName
from clipper_topics import codec
from clipper_topics.change import Change
from clipper_topics.control_keys import change_key, drift_key, key_of
from clipper_topics.manifests import ApplicationManifest, ModelManifest
from clipper_topics.selection_rows import SavedRow

DIGITS = ApplicationManifest(name="digits", models=["svm:2"])
SVM = ModelManifest(name="svm", version="2", uri="models:svm")


def refusal(state, key, value, headers=()):
    found = state.apply(key, value, headers)
    return found.reason if isinstance(found, RefusedRecord) else None


def test_an_unreadable_record_is_kept_with_its_reason_until_a_better_one():
    state = ControlState()
    for key, value in ((b"application/digits", b"{"), (b"policy/x", b"{}"), (None, b"{}")):
        state.apply(key, value)
    assert sorted(state.manifests.unreadable) == ["", "application/digits", "policy/x"]
    assert "expected application/<name> or model/<name>:<version>" in state.manifests.unreadable["policy/x"].reason
    state.apply(b"application/digits", codec.applications.encode(DIGITS))
    assert (state.manifests.applications, sorted(state.manifests.unreadable)) == ({"digits": DIGITS}, ["", "policy/x"])
    assert state.apply(b"policy/x", None) is None
    assert sorted(state.manifests.unreadable) == [""]


def test_an_empty_value_takes_a_manifest_away_also_one_that_was_never_there():
    assert (key_of(SVM), key_of(DIGITS)) == (b"model/svm:2", b"application/digits")
    state = ControlState()
    for key, value in ((b"model/svm:2", codec.models.encode(SVM)), (b"model/svm:2", None), (b"application/x", b"")):
        state.apply(key, value)
    assert (state.manifests.models, state.manifests.applications, state.manifests.unreadable) == ({}, {}, {})


def nested(levels):
    return [nested(levels - 1)] if levels else 1


MODEL = {"name": "a", "version": "1", "uri": "acme:f"}
APP = {"name": "app", "models": ["a:1"]}
BAD_OF_MODEL: dict[str, list] = {
    "name": ["b"],
    "version": ["2"],
    "uri": ["a" * 10_000],
    "replicas": [10**9, 0, 10**400, "1"],
    "batch": [{"max_rows": 10**12}, {"target_ms": 1e308}, {"hang_s": 1e9}],
    "input": [{"shape": [1024, 1024, 1024]}, {"shape": [1] * 100}],
    "parameters": [{"x": nested(200)}, {"x": 10**400}],
}
BAD_OF_APPLICATION: dict[str, list] = {
    "name": ["apq"],
    "models": [[f"a:{number}" for number in range(1000)]],
    "objective_ms": [10**400],
    "seed": [10**400],
    "revision": [10**400],
    "default_output": [nested(200), "x" * 300_000, 10**400],
    "policy": [{"parameters": {"eta": nested(200)}}],
}
BAD = [
    *(("model/a:1", MODEL | {name: value}) for name, values in BAD_OF_MODEL.items() for value in values),
    *(("model/a:1", content) for content in ({"name": "a"}, [MODEL], "model", None)),
    *(("application/app", APP | {name: value}) for name, values in BAD_OF_APPLICATION.items() for value in values),
]


@pytest.mark.parametrize(("key", "content"), BAD)
def test_a_refused_manifest_leaves_the_one_before_it_in_force(key, content):
    state = ControlState()
    assert refusal(state, b"model/a:1", json.dumps(MODEL).encode()) is None
    assert refusal(state, b"application/app", json.dumps(APP).encode()) is None
    reason = refusal(state, key.encode(), json.dumps(content).encode())
    assert reason
    assert len(reason) <= 500
    assert state.manifests.models == {"a:1": ModelManifest(**MODEL)}
    assert state.manifests.applications == {"app": ApplicationManifest(**APP)}
    assert state.manifests.unreadable[key].reason == reason


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_refused_in_msgpack_too(number):
    state = ControlState()
    outputs = [{"default_output": number}, {"default_output": [number]}]
    for content in (*outputs, {"confidence_threshold": number}, {"policy": {"parameters": {"eta": number}}}):
        assert refusal(state, b"application/app", msgspec.msgpack.encode(APP | content), codec.MSGPACK_HEADERS), content
    assert state.manifests.applications == {}


def test_a_key_that_names_something_else_than_the_value_takes_nothing_over():
    state = ControlState()
    own, evil = (codec.models.encode(ModelManifest(name="b", version="2", uri=uri)) for uri in ("acme:g", "evil:g"))
    state.apply(b"model/b:2", own)
    others = (b"model/a:1", b"model/b:2/", b"model/b:2\xff", b"model/", b"application/b:2", b"model/" + b"b" * 100_000)
    for key in others:
        reason = refusal(state, key, evil)
        assert reason, key
        assert len(reason) <= 500
    assert {ref: model.uri for ref, model in state.manifests.models.items()} == {"b:2": "acme:g"}
    assert all(len(key) <= 200 for key in state.manifests.unreadable)


def test_refused_keys_without_end_take_no_memory_without_end():
    state = ControlState()
    for number in range(3000):
        assert refusal(state, b"model/%d" % number, b"{")
    assert list(state.manifests.unreadable) == [f"model/{number}" for number in range(2000, 3000)]


def test_what_a_process_must_not_follow_is_refused_as_what_nobody_must():
    def accept(manifest):
        if manifest.name == "app":
            raise UnknownName("no such policy")

    state = ControlState(accept=accept)
    assert refusal(state, b"application/app", json.dumps(APP).encode()) == "no such policy"
    assert refusal(state, b"application/apq", json.dumps({**APP, "name": "apq"}).encode()) is None
    assert list(state.manifests.applications) == ["apq"]


# --- notes ------------------------------------------------------------------------------------------------------
CHANGE = Change(application="digits", revision=4, command="promote", at_ms=0, by="ada", after=DIGITS)
READERS = {
    "commands and replay": ControlState,
    "status": lambda: DeploymentView().declared,
    "rollout": lambda: ControlState(notes=("change", "drift"), saved_rows=False),
}
MISNAMED = {
    "another revision": (change_key("digits", 5), codec.changes.encode(CHANGE)),
    "another application": (change_key("shop", 4), codec.changes.encode(CHANGE)),
    "another version": (drift_key("digits", "knn:1"), codec.drifts.encode(DRIFT)),
    "no change": (change_key("digits", 4), b"{"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", MISNAMED)
def test_a_note_under_another_name_than_its_own_counts_for_nobody(reader, case):
    state = READERS[reader]()
    key, value = MISNAMED[case]
    refused = state.apply(key, value, offset=7)
    assert (refused.offset, refused.key) == (7, key.decode())
    assert (state.changes, state.drifts, state.manifests.unreadable) == ({}, {}, {})


def test_status_and_rollout_begin_nothing_by_a_change_under_another_name():
    """Its revision would extend a trial, or stand in the history of an application that it is not of."""
    facts, control = DeploymentView(), READERS["rollout"]()
    key, value = MISNAMED["another application"]
    facts.control(key, value)
    control.take([record(0, value, key, "control")])
    assert (facts.changes_of("digits"), facts.changes_of("shop"), list(facts.events)) == ([], [], [])
    assert (comparison_specs(control), control.history("digits")) == ({}, {})


def test_history_is_in_order_and_goes_on_over_a_deletion():
    state = ControlState()
    for revision in (3, 1, 2):
        one = msgspec.structs.replace(CHANGE, revision=revision)
        assert state.apply(key_of(one), codec.changes.encode(one)) == one
    assert list(state.history("digits")) == [1, 2, 3]
    assert (state.current("digits"), state.revision("digits"), state.revision("shop")) == (0, 3, 0)


def test_a_process_keeps_only_the_notes_and_rows_that_it_asks_for():
    kept = msgspec.structs.replace(CHANGE, rows=[SavedRow(partition=0, totals={"svm:1": (1.0, 0.0, 1.0, 0.0)})])
    log = [(key_of(kept), codec.changes.encode(kept)), (key_of(DRIFT), codec.drifts.encode(DRIFT))]
    whole, without_rows, manifests_only = ControlState(), ControlState(saved_rows=False), ControlState(notes=())
    for state in (whole, without_rows, manifests_only):
        for key, value in log:
            state.apply(key, value)
    assert (whole.changes, whole.drifts) == ({"digits": {4: kept}}, {("digits", "svm:1"): DRIFT})
    assert without_rows.changes == {"digits": {4: CHANGE}}
    assert (manifests_only.changes, manifests_only.drifts) == ({}, {})


def test_the_time_of_a_manifest_is_that_of_the_record_in_force():
    state = ControlState()
    state.apply(key_of(DIGITS), codec.applications.encode(DIGITS), at_ms=1_000)
    state.apply(key_of(DIGITS), b"{", at_ms=2_000)
    assert state.declared_ms == {"digits": 1_000}
