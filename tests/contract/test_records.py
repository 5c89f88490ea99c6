"""Bytes that were written once are read for ever, and the packaged schemas say what the codecs accept.

A file in golden/ is never changed, only added to.
"""

import json
import operator
import re
import struct
from functools import reduce
from pathlib import Path
from typing import Any

import generate_schemas
import jsonschema
import msgspec
import pytest
from bad_input import INVALID_FEEDBACK, INVALID_QUERIES
from builders.messages import MESSAGES

from clipper_topics import codec
from clipper_topics.catalogue import LARGEST_RECORD_BYTES, Catalogue
from clipper_topics.codec import FailedRow, OutputFrame, RequestFrame
from clipper_topics.json_schema import field_sentences
from clipper_topics.restore import Marker
from clipper_topics.selection_rows import ModelTotalsRecord, RowKey, SavedRow, SelectionRow, decode_row, encode_row

GOLDEN = Path(__file__).parent / "golden"
KINDS = {"json": codec.JSON, "msgpack": codec.MSGPACK}
UNLIKE_PLURALS = {"query": "queries", "feedback": "feedback"}
CODECS = {name: getattr(codec, UNLIKE_PLURALS.get(name, f"{name.replace('-', '_')}s")) for name in MESSAGES}

# --- bytes ----------------------------------------------------------------------------------------------------------
SVM = ModelTotalsRecord("svm:1", 12.0, 1.5, 3.25)
PLAIN = ModelTotalsRecord("svm:1", 12.0, 1.5, 3.25, 24.0)
MOVING = ModelTotalsRecord("svm:1", 12.0, 1.5, 3.25, 24.0, (12.0, 1.5, -2.0, 7.5, 0.1))
KNN = ModelTotalsRecord("knn:2", 1.0, 1.0, 2.0, 2.0)
SAVED = {"svm:1": (12.0, 1.5, 24.0, 3.25)}
MOMENTS = {"svm:1": (12.0, 1.5, -2.0, 7.5, 0.1)}
ROWS = [
    SavedRow(partition=3, totals=SAVED | {"forest:2": (0.1, 0.0, 0.1, 0.0)}),
    SavedRow(partition=3, context="me", totals={"svm:1": (1.0, 1.0, 1.0, 1.0)}),
]
STATE = {
    "selection-row": SelectionRow(version=1, offset=99, applied=12, totals=[SVM]),
    "selection-row-plain": SelectionRow(version=1, offset=99, applied=12, totals=[PLAIN]),
    "selection-row-moments": SelectionRow(version=1, offset=99, applied=12, totals=[MOVING, KNN]),
    "marker": Marker(application="digits", rows=ROWS),
    "marker-moments": Marker(application="digits", rows=[SavedRow(partition=3, totals=SAVED, moments=MOMENTS)]),
    "selection-key": RowKey(application="digits", context=None, partition=3),
}
IDS = {"router": bytes(range(8)), "frame": 300}
FRAMES = {
    "request-matrix": RequestFrame(
        **IDS, reply=3, dtype="float32", shape=[2, 2],
        matrix=struct.pack("<4f", 0.0, 0.5, 1.0, -1.0), deadlines=struct.pack("<2d", 1_764_000_000.25, float("inf")),
    ),
    "request-rows": RequestFrame(**IDS | {"frame": 1}, reply=0, dtype="text", shape=[2], rows=["a", "ß"]),
    "output": OutputFrame(
        **IDS, row0=64, outputs=[3, None], failed=[FailedRow(row=65, reason="late", explanation="")]
    ),
}  # fmt: skip
RECORDS = sorted({path.stem for path in GOLDEN.iterdir()} - {*STATE, *FRAMES})
"""Records of named fields: what is read of each must say all that its JSON says, so no field was lost or renamed."""


def golden(name, ending):
    return (GOLDEN / f"{name}.{ending}").read_bytes()


def read(name, ending="json", **added):
    """The record in a golden file, into which fields may have come."""
    parser, written = getattr(msgspec, ending), golden(name, ending)
    content = parser.decode(written)
    for inside in (content, *(value for value in content.values() if isinstance(value, dict))):
        if inside not in (content.get("parameters"), content.get("digests")) and "base64" not in inside:
            inside.update(added)
    kind = max((kind for kind in CODECS if name.startswith(kind)), key=len)
    return CODECS[kind].decode_as(KINDS[ending], parser.encode(content) if added else written)


@pytest.mark.parametrize("name", RECORDS)
def test_bytes_of_a_record_are_read_as_they_were_meant_whatever_fields_come_later(name):
    record = read(name)
    said = msgspec.json.decode(msgspec.json.encode(record))
    assert said | json.loads(golden(name, "json")) == said
    later = {"from_the_future": {"deep": [1, None]}}
    assert read(name, **later) == read(name, "msgpack") == read(name, "msgpack", **later) == record


@pytest.mark.parametrize("name", FRAMES)
def test_bytes_of_a_frame_are_read_as_they_were_meant_whatever_is_appended_later(name):
    expected, written = FRAMES[name], golden(name, "frame")
    decode = codec.decode_request if isinstance(expected, RequestFrame) else codec.decode_output
    longer = written[:1] + msgspec.msgpack.encode([*msgspec.msgpack.decode(written[1:]), "from the future"])
    assert decode(written) == decode(longer) == expected
    with pytest.raises(codec.UnknownFrame, match="version 2, this process reads 1"):
        decode(b"\x02" + written[1:])


@pytest.mark.parametrize("name", STATE)
def test_bytes_of_selection_totals_are_read_as_they_were_meant_and_a_row_is_read_as_it_was_written(name):
    for ending in KINDS:
        assert getattr(msgspec, ending).decode(golden(name, ending), type=type(STATE[name])) == STATE[name]
    if isinstance(STATE[name], SelectionRow):
        assert decode_row(encode_row(STATE[name])) == STATE[name]


def test_a_reader_from_before_there_were_features_reads_the_rest():
    *_, totals = msgspec.msgpack.decode(golden("selection-row-moments", "msgpack"))[:4]
    assert [total[:5] for total in totals] == [["svm:1", 12.0, 1.5, 3.25, 24.0], ["knn:2", 1.0, 1.0, 2.0, 2.0]]
    (row,) = msgspec.msgpack.decode(golden("marker-moments", "msgpack"))["rows"]
    assert row["totals"] == {"svm:1": [12.0, 1.5, 24.0, 3.25]}
    for name in ("query-features", "prediction-features"):
        assert json.loads(golden(name, "json"))["features"] == read(name).features == [0.5, -1.0]


def test_every_golden_file_is_there():
    names = {path.name for path in GOLDEN.iterdir()}
    assert {f"{name}.{ending}" for name in (*RECORDS, *STATE) for ending in KINDS} <= names
    assert len(RECORDS) >= 19


# --- schemas --------------------------------------------------------------------------------------------------------
def validator(name):
    schema = json.loads(generate_schemas.documents()[f"{name}.schema.json"])
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_has_a_sentence_a_field_and_examples_that_fit_its_schema_and_come_back(name):
    record, fits = MESSAGES[name].record, validator(name)
    assert set(field_sentences(record)) == {field.name for field in msgspec.structs.fields(record)}
    for example in MESSAGES[name].examples:
        fits.validate(json.loads(msgspec.json.encode(example)))
        for kind in KINDS.values():
            assert CODECS[name].decode_as(kind, CODECS[name].encode(example, kind)) == example


DIGITS, SVM_1 = {"name": "digits", "models": ["svm:1"]}, {"name": "svm", "uri": "a:b"}
WRONG: dict[str, list[Any]] = {
    "query": [{"input": 1}, *({"application": "digits", **fields} for fields, _ in INVALID_QUERIES)],
    "feedback": [{"query_id": "0-1", **fields} for fields, _ in INVALID_FEEDBACK],
    "application": [DIGITS | {"name": "Digits"}, DIGITS | {"models": ["svm"]}, DIGITS | {"audit_ratio": 2}],
    "model": [SVM_1 | wrong for wrong in ({"replicas": 0}, {"sha256": "abc"}, {"name": "svm\n"})],
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_by_itself_does_not_fit_the_schema(name):
    fits = validator(name)
    assert [content for content in WRONG[name] if fits.is_valid(content)] == []


# --- the AsyncAPI document ------------------------------------------------------------------------------------------
def test_the_asyncapi_document_names_every_topic_message_and_header_and_its_references_resolve():
    content = generate_schemas.asyncapi(Catalogue(prefix="other", partitions=7), "1.0.0")
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(content)):
        reduce(operator.getitem, reference.split("/"), content)
    assert content["asyncapi"] == "3.0.0"
    channels, messages = content["channels"], content["components"]["messages"]
    assert channels["queries"]["address"] == "other.queries"
    predictions = channels["predictions"]["bindings"]["kafka"]
    assert predictions["partitions"] == 7
    assert predictions["topicConfiguration"]["max.message.bytes"] == LARGEST_RECORD_BYTES
    assert len(messages) == len(MESSAGES) + 1
    assert {name for channel in channels.values() for name in channel["messages"]} == set(messages)
    located = {name for name, one in messages.items() if one.get("correlationId", {}).get("location")}
    assert located == {"query", "prediction", "audit", "feedback", "feedbackAck"}
    assert {messages[name]["headers"]["$ref"] for name in located} == {"#/components/schemas/EchoedHeaders"}
