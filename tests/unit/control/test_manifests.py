"""What do the records of the control topic add up to?"""

import json
import time

import msgspec
import pytest

from clipper_agents.control.manifests import Manifests
from clipper_stream.errors import UnknownName
from clipper_topics import codec
from clipper_topics.control_keys import application_key, key_of, model_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest

DIGITS = ApplicationManifest(name="digits", models=["svm:2"])
SVM = ModelManifest(name="svm", version="2", uri="models:svm")


def test_a_manifest_is_published_under_its_kind_and_name():
    assert key_of(DIGITS) == application_key("digits") == b"application/digits"
    assert key_of(SVM) == model_key("svm:2") == b"model/svm:2"


def test_a_record_that_cannot_be_read_is_kept_with_the_reason_until_a_better_one_comes():
    manifests = Manifests()
    manifests.apply(b"application/digits", b"{")
    manifests.apply(b"policy/x", b"{}")
    manifests.apply(None, b"{}")
    assert sorted(manifests.unreadable) == ["", "application/digits", "policy/x"]
    assert "expected application/<name> or model/<name>:<version>" in manifests.unreadable["policy/x"]
    manifests.apply(b"application/digits", codec.applications.encode(DIGITS))
    assert manifests.applications == {"digits": DIGITS}
    assert sorted(manifests.unreadable) == ["", "policy/x"]


def test_an_empty_value_takes_a_manifest_away_also_one_that_was_never_there():
    manifests = Manifests()
    manifests.apply(model_key("svm:2"), codec.models.encode(SVM))
    manifests.apply(model_key("svm:2"), None)
    manifests.apply(application_key("digits"), b"")
    assert (manifests.models, manifests.applications, manifests.unreadable) == ({}, {}, {})


def nested(levels):
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


MODEL = {"name": "a", "version": "1", "uri": "acme:f"}
APP = {"name": "app", "models": ["a:1"]}
BAD_MODELS = {
    "another name": {**MODEL, "name": "b"},
    "another version": {**MODEL, "version": "2"},
    "no uri": {"name": "a"},
    "replicas": {**MODEL, "replicas": 10**9},
    "no replicas": {**MODEL, "replicas": 0},
    "a number beyond any": {**MODEL, "replicas": 10**400},
    "text for a number": {**MODEL, "replicas": "1"},
    "rows of a batch": {**MODEL, "batch": {"max_rows": 10**12}},
    "an endless target": {**MODEL, "batch": {"target_ms": 1e308}},
    "a hang of years": {**MODEL, "batch": {"hang_s": 1e9}},
    "a row of gigabytes": {**MODEL, "input": {"shape": [1024, 1024, 1024]}},
    "many dimensions": {**MODEL, "input": {"shape": [1] * 100}},
    "deep parameters": {**MODEL, "parameters": {"x": nested(200)}},
    "parameters beyond 64 bits": {**MODEL, "parameters": {"x": 10**400}},
    "a long uri": {**MODEL, "uri": "a" * 10_000},
    "a list": [MODEL],
    "text": "model",
    "null": None,
}
BAD_APPLICATIONS = {
    "another name": {**APP, "name": "apq"},
    "many models": {**APP, "models": [f"a:{number}" for number in range(1000)]},
    "an objective beyond any": {**APP, "objective_ms": 10**400},
    "a seed beyond any": {**APP, "seed": 10**400},
    "a revision beyond any": {**APP, "revision": 10**400},
    "a deep default": {**APP, "default_output": nested(200)},
    "a default too large": {**APP, "default_output": "x" * 300_000},
    "a default beyond 64 bits": {**APP, "default_output": 10**400},
    "deep policy": {**APP, "policy": {"parameters": {"eta": nested(200)}}},
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_model_manifest_that_must_not_be_followed_leaves_the_one_before_it_in_force(case):
    manifests = Manifests()
    assert manifests.apply(b"model/a:1", json.dumps(MODEL).encode()) is None
    reason = manifests.apply(b"model/a:1", json.dumps(BAD_MODELS[case]).encode())
    assert reason
    assert len(reason) <= 500
    assert manifests.models == {"a:1": ModelManifest(**MODEL)}
    assert manifests.unreadable == {"model/a:1": reason}


@pytest.mark.parametrize("case", BAD_APPLICATIONS)
def test_an_application_manifest_that_must_not_be_followed_leaves_the_one_before_it_in_force(case):
    manifests = Manifests()
    assert manifests.apply(b"application/app", json.dumps(APP).encode()) is None
    assert manifests.apply(b"application/app", json.dumps(BAD_APPLICATIONS[case]).encode())
    assert manifests.applications == {"app": ApplicationManifest(**APP)}


@pytest.mark.parametrize(
    "content",
    [
        {"default_output": float("nan")},
        {"default_output": [float("inf")]},
        {"confidence_threshold": float("nan")},
        {"policy": {"parameters": {"eta": float("nan")}}},
    ],
)
def test_a_number_that_json_has_not_is_refused_in_msgpack_too(content):
    manifests = Manifests()
    value = msgspec.msgpack.encode({**APP, **content})
    assert manifests.apply(b"application/app", value, codec.MSGPACK_HEADERS)
    assert manifests.applications == {}


def test_a_key_that_names_something_else_than_the_value_takes_nothing_over():
    manifests = Manifests()
    manifests.apply(b"model/b:2", codec.models.encode(ModelManifest(name="b", version="2", uri="acme:g")))
    for key in (
        b"model/a:1",
        b"model/b:2/",
        b"model/b:2\xff",
        b"model/",
        b"application/b:2",
        b"model/" + b"b" * 100_000,
    ):
        reason = manifests.apply(key, codec.models.encode(ModelManifest(name="b", version="2", uri="evil:g")))
        assert reason, key
        assert len(reason) <= 500
    assert {ref: model.uri for ref, model in manifests.models.items()} == {"b:2": "acme:g"}
    assert all(len(key) <= 200 for key in manifests.unreadable)


@pytest.mark.parametrize(
    "value", [b"[" * 1_000_000, b"{" * 100_000, b"\x91" * 100_000, b"\xff" * 1000, b'{"name":' * 20_000]
)
def test_bytes_of_any_form_are_refused_at_once(value):
    manifests = Manifests()
    began_s = time.monotonic()
    for headers in ((), codec.MSGPACK_HEADERS, [("content-type", b"application/x-python-pickle")]):
        assert manifests.apply(b"model/a:1", value, headers)
    assert time.monotonic() - began_s < 5
    assert manifests.models == {}


def test_refused_keys_without_end_take_no_memory_without_end():
    manifests = Manifests()
    for number in range(3000):
        assert manifests.apply(b"model/%d" % number, b"{")
    assert list(manifests.unreadable) == [f"model/{number}" for number in range(2000, 3000)]


def test_what_a_process_must_not_follow_is_refused_as_what_nobody_must():
    def accept(manifest):
        if manifest.name == "app":
            raise UnknownName("no such policy")

    manifests = Manifests(accept=accept)
    assert manifests.apply(b"application/app", json.dumps(APP).encode()) == "no such policy"
    assert manifests.apply(b"application/apq", json.dumps({**APP, "name": "apq"}).encode()) is None
    assert list(manifests.applications) == ["apq"]
