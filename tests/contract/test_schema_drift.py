"""The packaged schemas are what the records say, valid themselves, and accept what the codecs accept."""

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from clipper_topics import codec, generate
from clipper_topics.asyncapi import document
from clipper_topics.catalogue import LARGEST_RECORD_BYTES, Catalogue
from clipper_topics.examples import MESSAGES
from clipper_topics.json_schema import field_sentences

CODECS: dict[str, Any] = {
    "query": codec.queries,
    "prediction": codec.predictions,
    "audit": codec.audits,
    "feedback": codec.feedback,
    "feedback-ack": codec.feedback_acks,
    "application": codec.applications,
    "model": codec.models,
    "change": codec.changes,
    "host-report": codec.host_reports,
    "restore": codec.restores,
    "drift": codec.drifts,
    "comparison": codec.comparisons,
}


def validator(name):
    schema = json.loads(generate.documents()[f"{name}.schema.json"])
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_packaged_files_are_what_would_be_generated_now():
    packaged = {file.name: file.read_text(encoding="utf-8") for file in generate.FOLDER.iterdir()}
    assert packaged == generate.documents(), "run `python -m clipper_topics.generate` and commit the files"


@pytest.mark.parametrize("name", MESSAGES)
def test_every_example_fits_its_schema_and_comes_back_from_its_codec(name):
    for example in MESSAGES[name].examples:
        validator(name).validate(json.loads(msgspec.json.encode(example)))
        for kind in (codec.JSON, codec.MSGPACK):
            written = CODECS[name].encode(example, kind)
            assert CODECS[name].decode(written, codec.headers_of(kind)) == example


@pytest.mark.parametrize("name", MESSAGES)
def test_every_field_has_a_sentence(name):
    record = MESSAGES[name].record
    assert set(field_sentences(record)) == {field.name for field in msgspec.structs.fields(record)}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("query", {"application": "digits"}),
        ("query", {"application": "digits", "input": 1, "inputs": [1]}),
        ("query", {"input": 1}),
        ("query", {"application": "digits", "input": 1, "deadline_ms": 0}),
        ("query", {"application": "digits", "input": 1, "query_id": ""}),
        ("feedback", {"query_id": "0-1"}),
        ("feedback", {"query_id": "0-1", "label": 1, "reward": 1}),
        ("feedback", {"query_id": "0-1", "loss": 1.5}),
        ("application", {"name": "Digits", "models": []}),
        ("application", {"name": "digits", "models": ["svm"]}),
        ("application", {"name": "digits", "models": ["svm:1"], "audit_ratio": 2}),
        ("model", {"name": "svm", "uri": "a:b", "replicas": 0}),
        ("model", {"name": "svm", "uri": "a:b", "sha256": "abc"}),
        ("model", {"name": "svm\n", "uri": "a:b"}),
    ],
)
def test_what_is_wrong_by_itself_does_not_fit_the_schema(name, content):
    assert not validator(name).is_valid(content)


def test_every_reference_of_the_asyncapi_document_resolves():
    content = document(Catalogue(), "1.0.0")

    def references(node):
        if isinstance(node, dict):
            yield from [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        for inside in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
            yield from references(inside)

    found = set(references(content))
    assert found
    for reference in found:
        node = content
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_the_asyncapi_document_names_every_topic_and_message_key():
    content = document(Catalogue(prefix="other", partitions=7), "1.0.0")
    assert content["asyncapi"] == "3.0.0"
    assert content["channels"]["queries"]["address"] == "other.queries"
    assert content["channels"]["predictions"]["bindings"]["kafka"]["partitions"] == 7
    messages = content["components"]["messages"]
    assert len(messages) == len(MESSAGES) + 1
    named = {name for channel in content["channels"].values() for name in channel["messages"]}
    assert named == set(messages)


def test_the_messages_of_a_client_say_which_header_correlates_them():
    messages = document(Catalogue(), "1.0.0")["components"]["messages"]
    located = {name for name, one in messages.items() if one.get("correlationId", {}).get("location")}
    assert located == {"query", "prediction", "audit", "feedback", "feedbackAck"}
    assert {messages[name]["headers"]["$ref"] for name in located} == {"#/components/schemas/EchoedHeaders"}


def test_the_document_says_how_large_records_of_the_pipeline_may_be():
    channels = document(Catalogue(), "1.0.0")["channels"]
    config = channels["predictions"]["bindings"]["kafka"]["topicConfiguration"]
    assert config["max.message.bytes"] == LARGEST_RECORD_BYTES
