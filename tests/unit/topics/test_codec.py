from types import SimpleNamespace

import msgspec
import pytest

from clipper_agents.router.indexed_log import OutgoingRecords
from clipper_topics import codec
from clipper_topics.codec import JSON, MSGPACK, MSGPACK_HEADERS, UndecodableRecord
from clipper_topics.manifests import ModelManifest


def test_routers_state_json_with_what_they_write_and_applications_need_not():
    stated = [(codec.CONTENT_TYPE, b"application/json")]
    assert (codec.headers_of(JSON), codec.headers_of(JSON, state_json=True)) == ([], stated)
    assert codec.headers_of(MSGPACK) == codec.headers_of(MSGPACK, state_json=True) == MSGPACK_HEADERS
    batch = SimpleNamespace(keys=[b"k"], echoed={}, audit={})
    assert [*OutgoingRecords(batch, [0], [b"{}"], JSON).records()] == [(b"k", b"{}", stated)]


NESTED = 100_000
HOSTILE = {
    "not a number": (JSON, b'{"application": "a", "input": NaN}'),
    "infinity": (JSON, b'{"application": "a", "input": -Infinity}'),
    "a float out of range": (JSON, b'{"application": "a", "input": 1e999}'),
    "an integer of 30,000 digits": (JSON, b'{"application": "a", "input": ' + b"9" * 30_000 + b"}"),
    "deep lists": (JSON, b'{"application": "a", "input": ' + b"[" * NESTED + b"]" * NESTED + b"}"),
    "deep maps in an unknown field": (JSON, b'{"unknown": ' + b'{"a":' * NESTED + b"1" + b"}" * NESTED + b"}"),
    "half a surrogate pair": (JSON, b'{"application": "\\ud800", "input": 1}'),
    "another encoding": (JSON, '{"application": "é", "input": 1}'.encode("latin-1")),
    "another encoding, of twice the width": (JSON, '{"application": "a", "input": 1}'.encode("utf-16")),
    "two of them": (JSON, b'{"application": "a", "input": 1}{"application": "a", "input": 1}'),
    "nothing": (JSON, b""),
    "msgpack: a list of four thousand million": (MSGPACK, b"\x82\xa5input\xdd\xff\xff\xff\xff"),
    "msgpack: binary of four thousand million": (MSGPACK, b"\x82\xa5input\xc6\xff\xff\xff\xff"),
    "msgpack: deep lists": (MSGPACK, b"\x82\xabapplication\xa1a\xa5input" + b"\x91" * NESTED),
    "msgpack: text that is not UTF-8": (MSGPACK, b"\x82\xabapplication\xa1\xff\xa5input\x01"),
    "msgpack: a map as a key": (MSGPACK, b"\x82\xabapplication\xa1a\xa5input\x81\x80\x01"),
    "msgpack: an extension type": (MSGPACK, b"\x82\xabapplication\xa1a\xa5input\xc7\x01\x05a"),
    "msgpack: a time out of range": (MSGPACK, b"\x82\xabapplication\xa1a\xa5input\xd7\xff" + b"\xff" * 8),
    "msgpack: JSON": (MSGPACK, b'{"application": "a", "input": 1}'),
}


@pytest.mark.parametrize(("kind", "value"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_are_undecodable(kind, value):
    for reader in (codec.queries, codec.applications):
        with pytest.raises(UndecodableRecord):
            reader.decode_as(kind, value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5, 1.5])
def test_a_loss_outside_its_range_is_undecodable_in_msgpack_too(value):
    with pytest.raises(UndecodableRecord, match="loss"):
        codec.feedback.decode(msgspec.msgpack.encode({"query_id": "0-1", "loss": value}), MSGPACK_HEADERS)


@pytest.mark.parametrize(
    ("value", "headers", "said"),
    [
        (b'{"application": "a", "input": 1, "deadline_ms": "soon"}', [], r"not application/json: .*\$\.deadline_ms"),
        (b"{}", [("content-type", None)], "use application/json"),
        (b"1,2", [("content-type", b"text/csv")], "'text/csv': use application/json .* or application/msgpack"),
    ],
)
def test_a_message_says_where_the_record_is_wrong_and_which_content_types_are_known(value, headers, said):
    with pytest.raises(UndecodableRecord, match=said):
        codec.queries.decode(value, headers)


def test_the_content_type_is_read_without_its_parameters_and_whatever_its_case():
    headers = [("trace", b"1"), ("Content-Type", b"Application/JSON; charset=utf-8")]
    assert codec.content_type(headers) == JSON
    assert codec.content_type([("content-type", MSGPACK.encode())]) == MSGPACK


LATER = {"of a later release": {"deep": [1, None]}}
MANIFEST = {
    "name": "digits",
    "revision": 2.0,
    "models": ["svm:1"],
    "input": {"shape": [3.0], **LATER},
    "trials": [{"model": "svm:2", "share": 1, **LATER}],
    "drift": LATER,
    "policy": {"parameters": {"eta": 1.0}, **LATER},
    "default_output": [1.0, {"share": 2.0}],
    **LATER,
}


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_unknown_fields_and_whole_floats_are_read_at_every_level_of_a_manifest(kind):
    write = {JSON: msgspec.json.encode, MSGPACK: msgspec.msgpack.encode}[kind]
    found = codec.applications.decode_as(kind, write(MANIFEST))
    assert (found.revision, found.input.shape, found.trials[0].model) == (2, [3], "svm:2")
    assert [type(found.policy.parameters["eta"]), type(found.default_output[0])] == [float, float]
    change = {"application": "digits", "revision": 2, "command": "update", "at_ms": 1, "by": "ada", "after": MANIFEST}
    assert codec.changes.decode_as(kind, write(change)).after == found


def guarded(metric, fields, times=1):
    one = f'{{"name": "g", "metric": "{metric}"{fields and ", "}{fields}}}'
    return f'"rollout": {{"guardrails": [{", ".join([one] * times)}]}}'


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        *((f'"revision": {value}', "revision") for value in ("2.5", "true", '"2"', "0.0", "9007199254740994.0")),
        ('"models": ["svm:1"], "trials": [{"model": "svm:1", "share": 0.1}]', "svm:1 on trial twice"),
        ('"trials": [{"model": "b:1", "share": 0.1}, {"model": "b:1", "share": 0.1}]', "b:1 on trial twice"),
        ('"loss_scale": 10', "loss_scale is about absolute and squared losses"),
        ('"loss": "absolute", "loss_scale": 0', "loss_scale"),
        ('"rollout": {"label_margin": 1.0}', "label_margin is about absolute losses"),
        (guarded("latency", '"margin": 0.1'), "on latency has margin: give bound_ms"),
        (guarded("errors", '"bound_ms": 5'), "on errors has bound_ms: give margin"),
        (guarded("errors", '"margin": 0.1, "better": "higher"'), "has better and margin: give margin"),
        (guarded("error", '"margin": 0.1'), r"on error has margin: give margin and range \(the log has latency"),
        (guarded("defaults", '"margin": 1'), "margin 1.0 of 0 to 1: give a rising range, less of it"),
        (guarded("revenue", '"margin": 9, "range": [0, 9]'), "margin 9.0 of 0 to 9"),
        (guarded("revenue", '"margin": 1, "range": [9, 0]'), "margin 1.0 of 9 to 0"),
        (guarded("cost", ""), "on cost has no bound: give margin"),
        (guarded("cost", '"margin": 0.1', times=2), "guardrails g, g: give each name once"),
    ],
)
def test_what_is_no_revision_no_trial_no_scale_or_no_guardrail_is_undecodable(fields, said):
    with pytest.raises(UndecodableRecord, match=said):
        codec.applications.decode(f'{{"name": "digits", "models": [], {fields}}}'.encode())


def test_a_misspelt_manifest_field_is_ignored_on_the_topic_but_refused_in_a_file():
    content = {"name": "svm", "uri": "a:b", "replica": 2, "batch": {"max_row": 3}}
    assert codec.models.decode(msgspec.json.encode(content)) == ModelManifest(name="svm", uri="a:b")
    with pytest.raises(msgspec.ValidationError, match="unknown field `replica`"):
        msgspec.convert(content, ModelManifest)
