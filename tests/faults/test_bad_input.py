"""Whatever anybody writes to the topics: each record is accounted for, and the good ones do not notice."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from e2e.any_client import AnyClient
from e2e.programs import until
from e2e.traffic import Traffic
from faults.bad_records import BadRecords
from faults.deployment import APPLICATIONS, OwnDeployment
from faults.report import FaultReport
from faults.restored import judge_restored, without_prediction
from faults.verdict import identity, judge, refused
from faults.watching import Watch, memory_mib

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.faults, pytest.mark.short, pytest.mark.timeout(900)]

MOST_MIB = 1_500
"""Of a process, with records of nearly a megabyte in flight: it must not grow with their number."""


class Sent:
    """Produces, and notes where the records went."""

    def __init__(self, client: AnyClient) -> None:
        self.places: dict[str, dict[tuple[int, int], bytes | None]] = {}
        self._producer = Producer(
            {"bootstrap.servers": client.bootstrap, "message.max.bytes": 9_000_000, "batch.size": 100_000}
        )

    def send(self, bad: BadRecords, count: int, big_ratio: float) -> None:
        for one in bad.generate(count, big_ratio):
            while True:
                try:
                    self._producer.produce(
                        one.topic, one.value, one.key, one.partition, on_delivery=self._note(one.value),
                        timestamp=one.timestamp_ms, headers=one.headers,
                    )  # fmt: skip
                    break
                except BufferError:
                    self._producer.poll(0.1)
            self._producer.poll(0)
        assert self._producer.flush(120) == 0

    def _note(self, value: bytes | None):  # type: ignore[no-untyped-def]
        def note(error: object, message: Message) -> None:
            assert error is None, error
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            assert topic is not None
            assert partition is not None
            assert offset is not None
            self.places.setdefault(topic, {})[partition, offset] = value

        return note


def behind(client: AnyClient, group: str, topic: str) -> dict[int, int]:
    """How many records the group has not committed, by partition, where there are any."""
    consumer = Consumer({"bootstrap.servers": client.bootstrap, "group.id": group})
    partitions = consumer.list_topics(topic, timeout=60).topics[topic].partitions
    found = consumer.committed([TopicPartition(topic, number) for number in partitions], timeout=60)
    lags = {one.partition: consumer.get_watermark_offsets(one, timeout=60)[1] - max(0, one.offset) for one in found}
    consumer.close()
    return {partition: lag for partition, lag in lags.items() if lag}


def test_bad_input(
    kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path, short: bool, fault_report: FaultReport
):
    """Every query is answered or a dead letter, every feedback counts as the fold says, and nobody dies or stalls."""
    deployment = OwnDeployment.on(kafka, catalogue, tmp_path)
    client, requests = deployment.client, catalogue.requests("slow-sum", "1")
    count, pooled = (2_000, 50) if short else (100_000, 400)
    sent = Sent(client)
    now_ms = round(time.time() * 1000)
    bad = BadRecords(catalogue.prefix, requests, catalogue.partitions, now_ms, seed=20_175, pooled=pooled)
    with deployment.worker("host", "slow-sum:1") as host, deployment.worker("router") as router:
        host.ready()
        router.ready()
        processes = (host.pid, router.pid)
        with (
            Watch(client, catalogue.predictions, lambda: processes) as watch,
            Traffic(client, catalogue.prefix, catalogue.partitions, rate_per_s=40.0) as traffic,
        ):
            began_s = time.monotonic()
            sent.send(bad, count, big_ratio=0.012 if short else 0.002)
            until("good queries after the bad ones", lambda goal=traffic.asked + 160: traffic.asked >= goal)
            stalls_s = watch.stalls_s([began_s])
            traffic.finish(lambda: without_prediction(client, catalogue.prefix))
            verdict = judge(client, catalogue.prefix, APPLICATIONS)
            good_after(client, catalogue)
            groups = [
                (catalogue.router_group, name) for name in (catalogue.queries, catalogue.feedback, catalogue.outputs)
            ]
            for group, topic in (*groups, (catalogue.host_group("slow-sum", "1"), requests)):
                until(f"{topic} is committed to its end", lambda g=group, t=topic: not behind(client, g, t))
        letters = {topic: refused(client, catalogue.prefix, topic) for topic in sent.places}
        note = f"{count} bad records, {sum(map(sum, map(Counter.values, letters.values())))} dead letters"
        fault_report.add("bad input", verdict, stalls_s=stalls_s, memory_mib=watch.most_mib, note=note)
        verdict.check()
        assert all(memory_mib(pid) > 0 for pid in processes), router.log[-4000:] + host.log[-4000:]
        assert watch.most_mib < MOST_MIB
        answered = {(one.partition, one.content["query_offset"]) for one in verdict.answers}
        assert not answered & letters[catalogue.queries].keys()
        twice = {topic: [place for place, times in found.items() if times > 1] for topic, found in letters.items()}
        assert not any(twice.values()), twice
        # nobody was killed, so each query has exactly one of the two
        queries, refusals = client.read(catalogue.queries), letters[catalogue.queries]
        asked = Counter(identity(one) for one in queries if (one.partition, one.offset) not in refusals)
        given = Counter(map(identity, client.read(catalogue.predictions)))
        assert not given - asked, [(about, times, asked[about]) for about, times in (given - asked).items()]
        assert not asked - given, [(about, times, given[about]) for about, times in (asked - given).items()]
        for topic in (catalogue.outputs, requests):  # whatever does not begin with the version byte is no frame
            no_frames = {place for place, value in sent.places[topic].items() if not (value or b"").startswith(b"\x01")}
            assert no_frames <= letters[topic].keys()
        assert "manifest refused" in router.log
        assert "this is a defect" not in router.log + host.log
        if not short:
            judge_restored(deployment, verdict, router).check()


def good_after(client: AnyClient, catalogue: Catalogue) -> None:
    """The same deployment answers as if nothing had been."""
    ids = {}
    for number in range(10):
        for name, models in (("picks", 1), ("blends", 3), ("slow", 1)):
            query_id = f"after {name} {number}"
            client.send_json(catalogue.queries, {"application": name, "input": [number, 5, 7], "query_id": query_id})
            ids[query_id] = models
    with client.reading(catalogue.predictions) as reading:
        reading.until("answers", lambda records: ids.keys() <= {one.content["query_id"] for one in records})
        found = {one.content["query_id"]: one.content for one in reading.records}
    defaults = [json.dumps(found[one]) for one in ids if found[one].get("default") and "blends" not in one]
    assert not defaults, defaults
