import asyncio
import json
import signal
import time
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from builders.status import DIGITS, MODELS, audit, prediction, row
from e2e.programs import Program, environment_of, until

from clipper_agents.status.cluster import readable_partitions
from clipper_agents.status.tailer import DeploymentTailer
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.change import Change
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import change_key, key_of
from clipper_topics.feedback import Feedback
from clipper_topics.host_report import HostReport, report_key

LONG_AGO_MS = 3_600_000
Written = tuple[str, bytes, bytes, int | None]


def declared(catalogue: Catalogue, now_ms: int) -> list[Written]:
    """Manifests, changes, reports and totals."""
    changed = [
        Change(application="digits", revision=3, command="shadow", model="nn:3", at_ms=now_ms - LONG_AGO_MS, by="ada"),
        Change(application="digits", revision=4, command="canary", model="rf:2", at_ms=now_ms, by="bob", why="try"),
    ]
    reports = [
        HostReport(model="svm:1", instance="h0", state="ready", at_ms=now_ms),
        HostReport(model="svm:1", instance="h1", state="starting", at_ms=now_ms),
        HostReport(model="rf:2", instance="h2", state="failed", reason="no module named shop", at_ms=now_ms),
        HostReport(model="nn:3", instance="h3", state="starting", at_ms=now_ms),
    ]
    merged = [
        row(0, {"svm:1": (60.0, 6.0), "knn:1": (60.0, 30.0)}),
        row(1, {"svm:1": (40.0, 4.0), "knn:1": (40.0, 20.0), "rf:2": (20.0, 1.0)}),
        row(1, {"svm:1": (40.0, 4.0), "knn:1": (40.0, 20.0), "rf:2": (30.0, 3.0)}),
    ]
    contextual = row(1, {"svm:1": (50.0, 50.0), "knn:1": (50.0, 0.0)}, "ada")
    return [
        *((catalogue.control, key_of(one), codec.models.encode(one), 0) for one in MODELS),
        (catalogue.control, key_of(DIGITS), codec.applications.encode(DIGITS), 0),
        *((catalogue.control, change_key("digits", one.revision), codec.changes.encode(one), 0) for one in changed),
        *((catalogue.hosts, report_key(one.model, one.instance), codec.host_reports.encode(one), 0) for one in reports),
        *((catalogue.selection, key, value, 0) for key, value in merged),
        (catalogue.selection_changelog, *contextual, 1),
    ]


def flowing(catalogue: Catalogue) -> list[Written]:
    """Ten predictions with their audits, and five feedbacks."""
    served = ["svm:1"] * 7 + ["knn:1", "rf:2", None]
    answers = [prediction(number, ref, latency_ms=20.0) for number, ref in enumerate(served)]
    audits = [audit(number) for number in range(len(served))]
    return [
        *((catalogue.predictions, b"k", codec.predictions.encode(one), 0) for one in answers),
        *((catalogue.audits, b"k", codec.audits.encode(one), 0) for one in audits),
        *((catalogue.feedback, b"k", codec.feedback.encode(feedback), 0) for feedback in map(labelled, range(5))),
    ]


def labelled(number: int) -> Feedback:
    return Feedback(query_id=f"0-{number}", application="digits", label=1)


async def write(kafka: KafkaConnection, records: list[Written], transaction: str) -> None:
    """In one transaction, as changes are written: a reader then meets its marker at the end of each topic."""
    producer = AIOKafkaProducer(**kafka.aiokafka(), transactional_id=transaction, transaction_timeout_ms=10_000)
    async with producer, producer.transaction():
        for topic, key, value, partition in records:
            await producer.send(topic, key=key, value=value, partition=partition)


async def read_back(kafka: KafkaConnection, catalogue: Catalogue, last_records: int) -> DeploymentTailer:
    partitions = await readable_partitions(kafka, catalogue)
    async with DeploymentTailer(kafka, catalogue, last_records=last_records) as following:
        assert await following.catch_up(partitions) == []
    return following


def check_read_back(kafka: KafkaConnection, catalogue: Catalogue, began_s: float) -> None:
    """What is cut off is not taken for the whole."""
    cut = asyncio.run(read_back(kafka, catalogue, 4))
    assert began_s < cut.recent.since_s
    counts = cut.recent.window("digits", cut.recent.since_s + 2, 60)
    assert counts.seconds <= 2
    assert asyncio.run(read_back(kafka, catalogue, 100)).recent.since_s == 0.0


def test_status_once_and_watched_says_what_the_records_say(kafka, catalogue, tmp_path, shell):
    environ = environment_of(kafka, catalogue)
    transaction, began_s = f"{catalogue.prefix}.test", time.time() - 1
    asyncio.run(write(kafka, declared(catalogue, int(time.time() * 1000)), transaction))
    with Program("status", "--watch", "--json", folder=tmp_path / "json", environ=environ) as watching:
        until("the first look", lambda: watching.lines)
        asyncio.run(write(kafka, flowing(catalogue), transaction))

        def flowed() -> list[dict[str, Any]]:
            return [one for one in map(json.loads, watching.lines) if one["applications"]["digits"]["queries"] == 10]

        look = until("all queries in one window", flowed, 30.0)[0]
        failed = HostReport(model="svm:1", instance="h0", state="failed", reason="out of memory")
        fresh = (catalogue.hosts, report_key("svm:1", "h0"), codec.host_reports.encode(failed), 0)

        seen = shell.run("status", "--json")
        check_status(json.loads(seen.out))
        assert seen.code == 1
        check_read_back(kafka, catalogue, began_s)

        asyncio.run(write(kafka, [fresh], transaction))
        until("the failure", lambda: any("out of memory" in line for line in watching.lines))
        watching.signal(signal.SIGINT)
        assert watching.ended() == 0
    shares = {one["model"]: one["share"] for one in look["applications"]["digits"]["versions"]}
    assert shares == {"svm:1": 0.7, "knn:1": 0.1, "rf:2": 0.1, "nn:3": 1.0}
    objects = [json.loads(line) for line in watching.lines]
    assert any("host h0 of model svm:1 failed: out of memory" in line for line in objects[-1]["reasons"])
    assert len({int(one["at_s"]) for one in objects}) == len(objects), "one object a second"

    alone = ("status", "--watch", "--application", "digits")
    with Program(*alone, folder=tmp_path / "pages", environ=environ) as watching:
        until(
            "a page", lambda: [one for one in watching.lines if one.startswith("wrong: host h0 of model svm:1 failed")]
        )
        watching.signal(signal.SIGTERM)
        assert watching.ended() == 0
    assert any(line.startswith("application digits: exp3") for line in watching.lines)


async def test_a_sample_of_the_logs_tells_how_much_was_written(kafka, catalogue):
    answers = [codec.predictions.encode(prediction(number, "svm:1")) for number in range(2_000)]
    async with DeploymentTailer(kafka, catalogue, sample_per_s=100) as following:
        await following.catch_up(await readable_partitions(kafka, catalogue))
        for chunk in range(0, len(answers), 100):
            values = answers[chunk : chunk + 100]
            written = [(catalogue.predictions, b"k", value, chunk // 100 % catalogue.partitions) for value in values]
            labels = [(catalogue.feedback, b"k", codec.feedback.encode(labelled(chunk)), 0)]
            await write(kafka, written + labels, f"{catalogue.prefix}.test")
            await following.poll()

        def counted():
            return following.recent.window("digits", time.time(), 60)

        async with asyncio.timeout(30):
            while counted().amounts["feedback",] < 20 or counted().amounts["queries",] < 0.9 * len(answers):
                await following.poll()
    counts = counted()
    assert counts.sampled
    assert counts.amounts["feedback",] == 20, "of a log that has few records all are read"
    assert counts.amounts["queries",] == pytest.approx(len(answers), rel=0.1)
    assert counts.amounts["served", "svm:1"] == counts.amounts["queries",]
    assert len(counts.samples_ms["answers",]) < len(answers) / 2


def check_status(seen: dict[str, Any]) -> None:
    """test_build of tests/unit/status has the other figures."""
    digits = seen["applications"]["digits"]
    versions = {one["model"]: one for one in digits["versions"]}
    models = seen["models"]
    hosts = {ref: (one["stage"], models[ref]["hosts"], models[ref]["replicas"]) for ref, one in versions.items()}
    assert hosts == {
        "svm:1": ("live", 1, 2), "knn:1": ("live", None, 0), "rf:2": ("canary", 0, 1), "nn:3": ("shadow", 0, 1)
    }  # fmt: skip
    assert (digits["queries"], digits["defaults"], digits["feedback"]) == (10, {"late": 1}, 5)
    assert digits["latency"] == {"p50_ms": 20.0, "p99_ms": 20.0}
    losses = {ref: (one["loss"] or {"count": 0.0})["count"] for ref, one in versions.items()}
    assert losses == {"svm:1": 100.0, "knn:1": 100.0, "rf:2": 30.0, "nn:3": 0.0}, "the newest row of a partition counts"
    assert versions["svm:1"]["weight"] > 0.95
    assert [one["revision"] for one in digits["changes"]] == [4, 3]
    assert "host h2 of model rf:2 failed: no module named shop" in "\n".join(seen["reasons"])
    assert seen["unread_topics"] == [], "the markers of transactions do not count as unread"
