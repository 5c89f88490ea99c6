"""Bytes that were written once are read for ever: a file in golden/ is never changed, only added to."""

import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clipper_topics import codec, frames
from clipper_topics.drift import DriftEvent
from clipper_topics.feedback import Feedback
from clipper_topics.frames import FailedRow, OutputFrame, RequestFrame
from clipper_topics.manifests import ApplicationManifest, BatchSpec, InputSpec, ModelManifest, PolicySpec
from clipper_topics.prediction import Missing, ModelAnswer, PolicyRef, Prediction
from clipper_topics.query import Query
from clipper_topics.restore import Marker, Restore
from clipper_topics.selection_rows import ModelTotalsRecord, RowKey, SavedRow, SelectionRow, encode_row

GOLDEN = Path(__file__).parent / "golden"
ROUTER = bytes(range(8))

RECORDS: dict[str, tuple[codec.Codec[Any], msgspec.Struct]] = {
    "query-row": (
        codec.queries,
        Query(
            application="digits",
            query_id="2-0123456789abcdef",
            context="user-42",
            input=[0.0, 0.5, -1.25e-3],
            deadline_ms=50,
            models=["svm:1", "forest"],
        ),
    ),
    "query-rows": (codec.queries, Query(application="spam", inputs=["Liebe Grüße", "今日は", ""])),
    "query-features": (codec.queries, Query(application="digits", input=[1.0], features=[0.5, -1.0])),
    "query-base64": (codec.queries, Query(application="photos", input={"base64": "AAEC"})),
    "prediction-row": (
        codec.predictions,
        Prediction(
            query_id="2-0123456789abcdef",
            application="digits",
            context="user-42",
            output=3,
            confidence=0.5,
            policy=PolicyRef(name="exp4", version=7),
            models=[
                ModelAnswer(model="svm", version="1", propensity=1.0, output=3, latency_ms=8.5),
                ModelAnswer(model="knn", version="2", propensity=0.25, output=5, latency_ms=0.0, cached=True),
            ],
            missing=[Missing(model="forest", version="1", propensity=1.0, reason="error", explanation="NaN")],
            query_offset=41,
            queried_at_ms=1_764_000_000_000,
            predicted_at_ms=1_764_000_000_010,
            latency_ms=10.0,
        ),
    ),
    "prediction-features": (
        codec.predictions,
        Prediction(
            query_id="0-19",
            application="digits",
            output=3,
            policy=PolicyRef(name="lin_ucb"),
            models=[ModelAnswer(model="svm", version="1", propensity=0.975, output=3)],
            features=[0.5, -1.0],
        ),
    ),
    "prediction-rows": (
        codec.predictions,
        Prediction(
            query_id="0-17",
            application="spam",
            outputs=["ham", None],
            policy=PolicyRef(name="single"),
            models=[ModelAnswer(model="bayes", version="1", propensity=1.0, outputs=["ham", None])],
        ),
    ),
    "prediction-default": (
        codec.predictions,
        Prediction(
            query_id="0-18",
            application="spam",
            output=None,
            default=True,
            reason="late",
            explanation="nothing arrived within 50 ms",
        ),
    ),
    "feedback-label": (codec.feedback, Feedback(query_id="0-17", application="spam", context="me", label=["ham", 1])),
    "feedback-loss": (codec.feedback, Feedback(query_id="0-17", loss=0.125)),
    "feedback-reward": (codec.feedback, Feedback(query_id="0-17", reward=1.0)),
    "application": (
        codec.applications,
        ApplicationManifest(
            name="digits",
            revision=7,
            input=InputSpec(dtype="float64", shape=[8, 8]),
            models=["svm:1", "forest:2"],
            policy=PolicySpec(name="exp4", parameters={"eta": 0.25}),
            combiner="mean",
            loss="squared",
            objective_ms=None,
            default_output=-1,
            confidence_threshold=0.5,
            audit_ratio=0.125,
            seed=11,
        ),
    ),
    "model": (
        codec.models,
        ModelManifest(
            name="svm",
            version="2b",
            runtime="sklearn",
            uri="models/svm.skops",
            sha256="ab" * 32,
            parameters={"method": "predict"},
            input=InputSpec(dtype="text"),
            batch=BatchSpec(limit="fixed", target_ms=5.0, max_rows=64, max_delay_ms=1.5),
            replicas=3,
            colocated=True,
            deterministic=False,
        ),
    ),
    "restore": (
        codec.restores,
        Restore(
            application="digits",
            at_ms=1_764_000_000_000,
            by="ada",
            why="wrong labels",
            digests={"0": "ab" * 32, "1": "cd" * 32},
            undoes="r-0123456789abcdef",
            before=[SavedRow(partition=1, context="me", totals={"svm:1": (12.0, 1.5, 24.0, 3.25)})],
        ),
    ),
    "drift": (
        codec.drifts,
        DriftEvent(
            application="digits",
            model="svm:2b",
            context="me",
            at_ms=1_764_000_000_000,
            detector="page_hinkley",
            parameters={"threshold": 12.5},
            losses=1344,
            after=57,
            loss_before=0.0625,
            loss_after=0.5,
            revision=7,
            topic="clipper.feedback",
            partition=3,
            offset=812,
        ),
    ),
}

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


@pytest.mark.parametrize("ending", KINDS)
@pytest.mark.parametrize("name", RECORDS)
def test_bytes_of_a_record_are_read_as_they_were_meant(name, ending):
    reader, expected = RECORDS[name]
    written = (GOLDEN / f"{name}.{ending}").read_bytes()
    assert reader.decode(written, [("content-type", KINDS[ending].encode())]) == expected


@pytest.mark.parametrize("ending", KINDS)
@pytest.mark.parametrize("name", RECORDS)
def test_a_field_from_the_future_is_ignored(name, ending):
    reader, expected = RECORDS[name]
    parser = getattr(msgspec, ending)
    content = parser.decode((GOLDEN / f"{name}.{ending}").read_bytes())
    for inside in (content, *(value for value in content.values() if isinstance(value, dict))):
        if inside not in (content.get("parameters"), content.get("digests")) and "base64" not in inside:
            inside["from_the_future"] = {"deep": [1, None]}
    assert reader.decode(parser.encode(content), [("content-type", KINDS[ending].encode())]) == expected


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
        assert RECORDS[name][0].decode(msgspec.json.encode(content)).features in (None, [])


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
