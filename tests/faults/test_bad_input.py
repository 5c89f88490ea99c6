"""Whatever anybody writes to the topics: each record is accounted for, and the good ones do not notice."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Message, Producer
from e2e.programs import until
from faults.bad_records import BadRecords
from faults.deployment import Deployment
from faults.restored import judge_restored
from faults.under_traffic import UnderTraffic
from faults.verdict import Place, identity, judge, refused
from faults.watching import memory_mib

pytestmark = [pytest.mark.faults, pytest.mark.short, pytest.mark.timeout(900)]

MOST_MIB = 1_500
"""Of a process, with records of nearly a megabyte in flight: it must not grow with their number."""


def places_of(bootstrap: str, records: Iterable[Mapping[str, Any]]) -> dict[str, dict[Place, bytes]]:
    """Produce them; the values by topic, partition and offset."""
    places, large = defaultdict[str, dict[Place, bytes]](dict), {"message.max.bytes": 9_000_000, "batch.size": 100_000}
    producer = Producer({"bootstrap.servers": bootstrap, **large})

    def note(value: bytes | None, error: object, message: Message) -> None:
        assert error is None, error
        places[message.topic()][message.partition(), message.offset()] = value or b""

    for one in records:
        while True:
            try:
                producer.produce(**one, on_delivery=partial(note, one["value"]))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(120) == 0
    return places


def test_bad_input(deployment, short, fault_report):
    """Every query is answered or a dead letter, every feedback counts as the fold says, and nobody dies or stalls."""
    client, catalogue = deployment.client, deployment.catalogue
    requests, hosts = catalogue.requests("slow-sum", "1"), catalogue.host_group("slow-sum", "1")
    count, pooled = (2_000, 50) if short else (100_000, 400)
    bad = BadRecords(catalogue, requests, seed=20_175, pooled=pooled)
    with ExitStack() as stack:
        workers = [stack.enter_context(deployment.worker(*one)) for one in (("host", "slow-sum:1"), ("router",))]
        for each in workers:
            each.ready()
        host, router = workers
        pids = host.pid, router.pid
        with UnderTraffic(deployment, fault_report, {"pids": lambda: pids}, rate_per_s=40.0) as rig:
            rig.elsewhere = True
            rig.fault()
            sent = places_of(client.bootstrap, bad.generate(count, big_ratio=0.012 if short else 0.002))
            rig.asks(160)
            rig.finish()
            verdict = judge(deployment)
            good_after(deployment)
            read = [
                (catalogue.router_group, name) for name in (catalogue.queries, catalogue.feedback, catalogue.outputs)
            ]
            for group, topic in (*read, (hosts, requests)):
                until(f"{topic} is committed to its end", lambda g=group, t=topic: not deployment.behind(g, t))
        letters = {topic: refused(deployment, topic) for topic in sent}
        note = f"{count} bad records, {sum(map(Counter.total, letters.values()))} dead letters"
        rig.conclude("bad input", verdict, kills=0, memory_mib=rig.watch.most_mib, note=note)
        assert all(memory_mib(each.pid) > 0 for each in workers), router.log[-4000:] + host.log[-4000:]
        assert rig.watch.most_mib < MOST_MIB
        answered = {(one.partition, one.content["query_offset"]) for one in verdict.answers}
        assert not answered & letters[catalogue.queries].keys()
        twice = {topic: [place for place, times in found.items() if times > 1] for topic, found in letters.items()}
        assert not any(twice.values()), twice
        # nobody was killed, so each query has exactly one of the two
        queries, refusals = client.read(catalogue.queries), letters[catalogue.queries]
        asked = Counter(identity(one) for one in queries if (one.partition, one.offset) not in refusals)
        given = Counter(map(identity, client.read(catalogue.predictions)))
        assert (given - asked, asked - given) == ({}, {})
        for topic in (catalogue.outputs, requests):  # whatever does not begin with the version byte is no frame
            no_frames = {place for place, value in sent[topic].items() if not value.startswith(b"\x01")}
            assert no_frames <= letters[topic].keys()
        assert "manifest refused" in router.log
        assert "this is a defect" not in router.log + host.log
        if not short:
            judge_restored(deployment, verdict, router).check()


def good_after(deployment: Deployment) -> None:
    """The same deployment answers as if nothing had been."""
    asked = {f"after {name} {number}": name for number in range(10) for name in ("picks", "blends", "slow")}
    for query_id, name in asked.items():
        query = {"application": name, "input": [int(query_id.split()[-1]), 5, 7], "query_id": query_id}
        deployment.client.send_json(deployment.catalogue.queries, query)
    with deployment.client.reading(deployment.catalogue.predictions) as reading:
        reading.until("answers", lambda records: asked.keys() <= {one.content["query_id"] for one in records})
        found = {one.content["query_id"]: one.content for one in reading.records}
    assert [found[one] for one, name in asked.items() if found[one].get("default") and name != "blends"] == []
