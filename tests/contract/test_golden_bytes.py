"""Bytes that were written once are read for ever: a file in golden/ is never changed, only added to."""

import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clipper_topics import codec, frames
from clipper_topics.frames import FailedRow, OutputFrame, RequestFrame
from clipper_topics.restore import Marker
from clipper_topics.selection_rows import ModelTotalsRecord, RowKey, SavedRow, SelectionRow, encode_row

GOLDEN = Path(__file__).parent / "golden"
ROUTER = bytes(range(8))

RECORDS: dict[str, codec.Codec[Any]] = {
    "query-row": codec.queries,
    "query-rows": codec.queries,
    "query-features": codec.queries,
    "query-base64": codec.queries,
    "prediction-row": codec.predictions,
    "prediction-features": codec.predictions,
    "prediction-rows": codec.predictions,
    "prediction-default": codec.predictions,
    "feedback-label": codec.feedback,
    "feedback-loss": codec.feedback,
    "feedback-reward": codec.feedback,
    "feedback-ack": codec.feedback_acks,
    "application": codec.applications,
    "model": codec.models,
    "restore": codec.restores,
    "drift": codec.drifts,
    "comparison": codec.comparisons,
    "comparison-candidate": codec.comparisons,
    "host-report": codec.host_reports,
}
"""Records of named fields: what is read of each must say all that its JSON says, so no field was lost or renamed."""

FRAMES: dict[str, RequestFrame | OutputFrame] = {
    "request-matrix": RequestFrame(
        router=ROUTER,
        frame=300,
        reply=3,
        dtype="float32",
        shape=[2, 2],
        matrix=struct.pack("<4f", 0.0, 0.5, 1.0, -1.0),
        deadlines=struct.pack("<2d", 1_764_000_000.25, float("inf")),
    ),
    "request-rows": RequestFrame(router=ROUTER, frame=1, reply=0, dtype="text", shape=[2], rows=["a", "ß"]),
    "output": OutputFrame(
        router=ROUTER, frame=300, row0=64, outputs=[3, None], failed=[FailedRow(row=65, reason="late", explanation="")]
    ),
}

STATE: dict[str, msgspec.Struct] = {
    "selection-row": SelectionRow(
        version=1, offset=99, applied=12, totals=[ModelTotalsRecord("svm:1", 12.0, 1.5, 3.25)]
    ),
    "selection-row-plain": SelectionRow(
        version=1, offset=99, applied=12, totals=[ModelTotalsRecord("svm:1", 12.0, 1.5, 3.25, 24.0)]
    ),
    "selection-row-moments": SelectionRow(
        version=1,
        offset=99,
        applied=12,
        totals=[
            ModelTotalsRecord("svm:1", 12.0, 1.5, 3.25, 24.0, (12.0, 1.5, -2.0, 7.5, 0.1)),
            ModelTotalsRecord("knn:2", 1.0, 1.0, 2.0, 2.0),
        ],
    ),
    "marker-moments": Marker(
        application="digits",
        rows=[
            SavedRow(
                partition=3,
                totals={"svm:1": (12.0, 1.5, 24.0, 3.25)},
                moments={"svm:1": (12.0, 1.5, -2.0, 7.5, 0.1)},
            )
        ],
    ),
    "marker": Marker(
        application="digits",
        rows=[
            SavedRow(partition=3, totals={"svm:1": (12.0, 1.5, 24.0, 3.25), "forest:2": (0.1, 0.0, 0.1, 0.0)}),
            SavedRow(partition=3, context="me", totals={"svm:1": (1.0, 1.0, 1.0, 1.0)}),
        ],
    ),
    "selection-key": RowKey(application="digits", context=None, partition=3),
}

KINDS = {"json": codec.JSON, "msgpack": codec.MSGPACK}


def golden_record(name, ending="json", **added):
    """The record in a golden file, into which fields may have come."""
    parser = getattr(msgspec, ending)
    content = parser.decode((GOLDEN / f"{name}.{ending}").read_bytes())
    for inside in (content, *(value for value in content.values() if isinstance(value, dict))):
        if inside not in (content.get("parameters"), content.get("digests")) and "base64" not in inside:
            inside.update(added)
    written = parser.encode(content) if added else (GOLDEN / f"{name}.{ending}").read_bytes()
    return RECORDS[name].decode(written, [("content-type", KINDS[ending].encode())])


@pytest.mark.parametrize("name", RECORDS)
def test_bytes_of_a_record_are_read_as_they_were_meant(name):
    record = golden_record(name)
    said = msgspec.json.decode(msgspec.json.encode(record))
    assert said | msgspec.json.decode((GOLDEN / f"{name}.json").read_bytes()) == said
    assert golden_record(name, "msgpack") == record


@pytest.mark.parametrize("ending", KINDS)
@pytest.mark.parametrize("name", RECORDS)
def test_a_field_from_the_future_is_ignored(name, ending):
    assert golden_record(name, ending, from_the_future={"deep": [1, None]}) == golden_record(name)


@pytest.mark.parametrize("name", FRAMES)
def test_bytes_of_a_frame_are_read_as_they_were_meant(name):
    expected = FRAMES[name]
    read = frames.decode_request if isinstance(expected, RequestFrame) else frames.decode_output
    assert read((GOLDEN / f"{name}.frame").read_bytes()) == expected


@pytest.mark.parametrize("name", FRAMES)
def test_a_field_appended_to_a_frame_is_ignored(name):
    expected = FRAMES[name]
    read = frames.decode_request if isinstance(expected, RequestFrame) else frames.decode_output
    written = (GOLDEN / f"{name}.frame").read_bytes()
    longer = written[:1] + msgspec.msgpack.encode([*msgspec.msgpack.decode(written[1:]), "from the future"])
    assert read(longer) == expected


def test_a_frame_of_another_version_is_refused_with_both_versions():
    written = (GOLDEN / "output.frame").read_bytes()
    with pytest.raises(frames.UnknownFrame, match="frame version 2, this process reads 1"):
        frames.decode_output(b"\x02" + written[1:])


@pytest.mark.parametrize("name", STATE)
@pytest.mark.parametrize("ending", KINDS)
def test_bytes_of_selection_totals_are_read_as_they_were_meant(name, ending):
    expected = STATE[name]
    written = (GOLDEN / f"{name}.{ending}").read_bytes()
    assert getattr(msgspec, ending).decode(written, type=type(expected)) == expected


@pytest.mark.parametrize("name", ["selection-row-moments", "selection-row-plain"])
def test_a_row_is_written_as_it_always_was(name):
    """One without moments has not a byte more than before there were any."""
    written = (GOLDEN / f"{name}.msgpack").read_bytes()
    assert encode_row(STATE[name]) == written


@pytest.mark.parametrize("name", ["selection-row-moments", "query-features", "prediction-features", "marker-moments"])
def test_a_reader_from_before_there_were_features_reads_the_rest(name):
    content = msgspec.msgpack.decode((GOLDEN / f"{name}.msgpack").read_bytes())
    if name == "selection-row-moments":
        found = msgspec.convert(content, type=_OldRow)
        assert [one.weighted_count for one in found.totals] == [24.0, 2.0]
    elif name == "marker-moments":
        assert msgspec.convert(content["rows"], type=list[_OldSavedRow])[0].totals == {"svm:1": (12.0, 1.5, 24.0, 3.25)}
    else:
        assert content.pop("features") == [0.5, -1.0]
        assert RECORDS[name].decode(msgspec.json.encode(content)).features in (None, [])


class _OldTotals(msgspec.Struct, array_like=True):
    model: str
    count: float
    loss: float
    weighted_loss: float
    weighted_count: float = 0.0


class _OldRow(msgspec.Struct, array_like=True):
    version: int
    offset: int
    applied: int = 0
    totals: list[_OldTotals] = []


class _OldSavedRow(msgspec.Struct):
    partition: int
    totals: dict[str, tuple[float, float, float, float]]


def test_every_golden_file_is_read_by_a_test():
    read = {f"{name}.{ending}" for name in (*RECORDS, *STATE) for ending in KINDS} | {
        f"{name}.frame" for name in FRAMES
    }
    assert {file.name for file in GOLDEN.iterdir()} == read
