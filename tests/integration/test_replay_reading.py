import asyncio
import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from aiokafka import AIOKafkaProducer
from builders.columns import concatenated
from builders.decision_logs import answer, decided
from builders.router_deployment import publish_manifests
from kafka_fixture import temporary_topics

from clipper_agents import exits
from clipper_agents.replay.export import configuration_of, export_log
from clipper_agents.replay.log_reading import KafkaLog
from clipper_agents.replay.span import Span
from clipper_stream.evaluation.log.parquet import read_chunks, read_facts
from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.feedback import FORWARDED, Feedback
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest
from clipper_topics.query import Query
from clipper_topics.restore import RESTORE

DECISIONS = 60
"""Decision `number` is in partition `number % 2`, by a:1 with 0.75 or by b:1, every fifth audited."""


@pytest.fixture(scope="module")
def catalogue(kafka):
    """Topics with repetitions, markers, orphans, undecodable and forwarded records, in two partitions."""
    with temporary_topics(kafka) as own:
        asyncio.run(write(kafka, own))
        yield own


@pytest.fixture
def log(kafka, catalogue):
    return KafkaLog(kafka=kafka, catalogue=catalogue, application="app", loss_kind="zero_one")


async def write(kafka, catalogue):
    async with AIOKafkaProducer(**kafka.aiokafka()) as producer:
        for topic, partition, content, headers in [*decisions(), *told()]:
            own = getattr(codec, topic)
            value = content if isinstance(content, bytes) else own.encode(content)
            await producer.send_and_wait(getattr(catalogue, topic), value, partition=partition, headers=headers)


def decisions():
    for number in range(DECISIONS):
        partition, query_id = number % 2, f"{number % 2}-{number:032x}"
        yield "queries", partition, Query(application="app", query_id=query_id, input=[number, 0.5]), []
        served, besides = (("a:1", 0.75), ("b:1", 0.25))[:: 1 if number % 4 else -1]
        chosen = answer(served[0], number % 3, served[1])
        made = decided(query_id, chosen, audited=not number % 5, query_offset=number // 2)
        yield "predictions", partition, made, []
        if not number % 5:
            asked = answer(besides[0], 1, besides[1], served=False)
            yield "audits", partition, Audit(query_id=query_id, models=[asked], query_offset=number // 2), []
        if not number % 7:
            yield "predictions", partition, made, []


def told():
    for number in range(DECISIONS):
        partition, query_id = number % 2, f"{number % 2}-{number:032x}"
        truth = Feedback(query_id=query_id, label=1)
        if not number % 10:  # sent to the wrong partition, and sent on by a router
            yield "feedback", 1 - partition, truth, []
            yield "feedback", partition, truth, [(FORWARDED, b"1")]
        elif number % 10 != 9:
            yield "feedback", partition, truth, []
        if not number % 6:
            yield "feedback", partition, Feedback(query_id=query_id, label=0), []
    for partition in (0, 1):
        yield "feedback", partition, b"marker", [(RESTORE, b"r-1")]
        yield "feedback", partition, b"{", []
        yield "feedback", partition, Feedback(query_id=f"{partition}-none", label=1), []


@pytest.fixture
def read(tmp_path):
    """All columns in one piece, sorted by partition and offset, and the metadata of the file."""

    def exported(log, processes=1, told=lambda _: None):
        path = tmp_path / f"{len([*tmp_path.iterdir()])}.parquet"
        facts = export_log(log, path, processes, total=told, progress=lambda more: told(-more))
        assert facts == read_facts(path)
        return sorted_columns(path), facts

    return exported


def sorted_columns(path):
    columns = concatenated(read_chunks(path))
    assert columns.at_ms.tolist() == sorted(columns.at_ms)
    return columns.take(np.lexsort((columns.offset, columns.partition)))


def inputs_of(path):
    table = pq.read_table(path, columns=["partition", "query_offset", "input"])
    return {(row["partition"], row["query_offset"]): row["input"] for row in table.to_pylist()}


def counted(facts):
    return {name: count for name, count in facts.counts.items() if count and name != "without_feedback"}


def changed(log, **changes):
    return dataclasses.replace(log, **changes)


def check_whole(columns, counts):
    assert columns.query_offset.tolist() == [*range(30), *range(30)]
    assert counts == dict(
        decisions=60, with_feedback=54, feedback=72, repeated=9, duplicates=10, forwarded=6, markers=2, undecodable=2,
        orphans=2,
    )  # fmt: skip
    both = columns.of_models(["a:1", "b:1"])
    number = both.query_offset * 2 + both.partition
    assert ((both.propensity[:, 1] == 0.25) == ((number % 4 == 0) | (number % 5 == 0))).all()
    told = number % 10 != 9
    assert (both.with_feedback == told).all()
    assert (both.answer_loss[told] == (number[told] % 3 != 1)).all()


@pytest.mark.parametrize("processes", [1, 2])
def test_the_whole_log_is_read_by_one_process_or_several(log, read, processes):
    told = []
    columns, facts = read(log, processes, told.append)
    check_whole(columns, counted(facts))
    assert (told[0], sum(told)) == (facts.counts["feedback"] + 4 + 60 + 9 + 12, 0), "progress up to the last record"


def test_times_choose_decisions_by_their_records_and_feedback_may_be_behind(log, read):
    whole, _ = read(log)
    first_feedback_ms = whole.feedback_at_ms[whole.with_feedback].min().item()
    columns, facts = read(changed(log, span=Span(until_ms=first_feedback_ms, horizon_s=600.0)))
    assert (len(columns), facts.counts["with_feedback"]) == (60, 54)
    columns, _ = read(changed(log, span=Span(until_ms=first_feedback_ms, horizon_s=0.0)))
    assert (len(columns), columns.with_feedback.sum()) == (60, 0)
    columns, _ = read(changed(log, span=Span(since_ms=first_feedback_ms + 600_000)))
    assert len(columns) == 0


def test_the_command_writes_a_file_and_says_what_is_in_it(log, shell):
    manifest = ApplicationManifest(name="app", models=["a:1", "b:1"], input=InputSpec(shape=[2]))
    models = [ModelManifest(name=name, uri="x:y", input=InputSpec(shape=[2])) for name in ("a", "b")]
    asyncio.run(publish_manifests(log.kafka, log.catalogue, [*models, manifest]))
    path, export = shell.folder / "app.parquet", ("replay", "export", "app", "--out", "app.parquet")
    (said,) = shell.json(*export, "--inputs")
    assert (said["decisions"], said["with_feedback"], said["without_feedback"], said["orphans"]) == (60, 54, 6, 2)
    facts = read_facts(path)
    assert (facts.application, facts.decisions, set(facts.models)) == ("app", 60, {"a:1", "b:1"})
    assert facts.offsets == {0: (0, 35), 1: (0, 34)}
    assert facts.configs == {2: configuration_of(manifest, "zero_one")}, "of the last revision that is known before it"
    check_whole(sorted_columns(path), counted(facts))
    inputs = {place: json.loads(text) for place, text in inputs_of(path).items()}
    assert inputs == {(number % 2, number // 2): {"input": [number, 0.5]} for number in range(DECISIONS)}
    shell(*export, code=exits.SETUP, said="app.parquet")
    nobody = ("replay", "export", "nobody", "--out", "x.parquet")
    shell(*nobody, code=exits.SETUP, said="no application 'nobody'")
