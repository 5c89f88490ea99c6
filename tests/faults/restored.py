"""The end of a case: what the logs say, and say once more when they are compacted and a router has lost everything."""

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from e2e.any_client import AnyClient, Record
from e2e.programs import Program, until
from e2e.traffic import Traffic
from faults.deployment import Deployment
from faults.verdict import Verdict, judge, without_prediction

CLEANER = {"log.cleaner.backoff.ms": "200"}
"""Of every broker: how long the cleaner rests when there is nothing to do, 15 s by default."""


BROKER, TOPIC = ResourceType.BROKER, ResourceType.TOPIC
LATE = "late order"
"""Ids of what is asked at the end begin with it."""
QUERIES = 200
"""Enough for each context of each application to be learned about again."""


def judge_twice(deployment: Deployment, *running: Program) -> Verdict:
    """Judge a deployment that is asked nothing more, and once more when it has lost everything but its topics.

    All of its routers are among what runs, which is ended in between, or have ended; hosts may stay.
    """
    return judge_restored(deployment, judge(deployment), *running)


def judge_restored(deployment: Deployment, before: Verdict, *running: Program) -> Verdict:
    """Compact, restore, ask and tell, and judge; of two verdicts the worse. Arguments as of `judge_twice`.

    The router reads a compacted changelog into an empty directory and goes on from its rows; it is told about every
    earlier answer once more, of which nothing may count.
    """
    client, catalogue = deployment.client, deployment.catalogue
    learned = [name for name in deployment.applications if name != "slow"]  # whose model may be gone with its host
    end(*(program for program in running if program.code is None))
    compact(client, catalogue.selection_changelog)
    shutil.rmtree(deployment.data, ignore_errors=True)
    with deployment.worker("router") as router:
        router.ready()
        with (
            client.reading(catalogue.predictions) as answers,
            Traffic(client, catalogue.prefix, catalogue.partitions, rate_per_s=QUERIES, ids=LATE) as traffic,
        ):
            # what is asked while it takes partitions over may all be late, and then nothing is learned from it
            answers.until("answers by models", lambda records: {*learned} <= answered_late(records))
            until("queries", lambda: traffic.asked >= QUERIES)
            traffic.finish(lambda: without_prediction(deployment))
        after = judge(deployment)
        end(router)
    assert all(after.applied[name] > before.applied[name] for name in learned), (before.applied, after.applied)
    return replace(
        after,
        lost=before.lost | after.lost,
        unaudited=before.unaudited | after.unaudited,
        double_counted=max(before.double_counted, after.double_counted),
        uncounted=max(before.uncounted, after.uncounted),
        rows_differing={**after.rows_differing, **before.rows_differing},
        parted=[*before.parted, *after.parted],
        late_rows=before.late_rows,  # what is compacted has no earlier ones
    )


def answered_late(records: Sequence[Record]) -> set[str]:
    """Applications of which a query of this end of a case was answered by a model."""
    answers = (one.content for one in records if LATE.encode() in (one.value or b""))
    return {answer["application"] for answer in answers if not answer.get("default")}


def end(*programs: Program) -> None:
    for program in programs:
        program.signal(signal.SIGTERM)
    for program in programs:
        assert program.ended() == 0, program.log[-4000:]


def tell_again(client: AnyClient, topic: str, errors_s: tuple[float, ...] = (0.0,)) -> None:
    """Every feedback once more, by applications whose clocks are wrong by one of these: none of it may count."""
    producer, rng = Producer({"bootstrap.servers": client.bootstrap}), random.Random(20191)
    for one in client.read(topic):
        at_ms = round((time.time() + rng.choice(errors_s)) * 1000)
        producer.produce(topic, one.value, one.key, one.partition, timestamp=at_ms, headers=list(one.headers.items()))
    assert producer.flush(60) == 0


# --- compaction within seconds instead of days, and seen rather than waited for -------------------------------------
def set_config(bootstrap: str, kind: ResourceType, name: str, config: Mapping[str, str]) -> None:
    entries = [ConfigEntry(*one, incremental_operation=AlterConfigOpType.SET) for one in config.items()]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    (done,) = admin.incremental_alter_configs([ConfigResource(kind, name, incremental_configs=entries)]).values()
    done.result(60)


def compact_often(client: AnyClient, topic: str, segment_ms: int = 100) -> None:
    """Have the brokers compact the topic all the time from now on, except the segment that is written."""
    for number in AdminClient({"bootstrap.servers": client.bootstrap}).list_topics(timeout=60).brokers:
        set_config(client.bootstrap, BROKER, str(number), CLEANER)
    segments = {"segment.ms": str(segment_ms), "min.cleanable.dirty.ratio": "0.01"}
    set_config(client.bootstrap, TOPIC, topic, segments)


def compact(client: AnyClient, topic: str) -> None:
    """Have all records of a topic compacted that nobody writes: of each key one is left when this returns.

    A transaction that is taken back makes each partition begin a new segment, and is seen by no reader.
    """
    compact_often(client, topic)
    producer = Producer({"bootstrap.servers": client.bootstrap, "transactional.id": f"{topic} roll"})
    producer.init_transactions(60)
    producer.begin_transaction()
    for partition in range(client.partitions(topic)):
        producer.produce(topic, b"", b"", partition)
    producer.flush(60)
    producer.abort_transaction(60)

    def is_compacted() -> bool:
        return max(Counter((one.partition, one.key) for one in client.read(topic)).values(), default=1) == 1

    until(f"one record a key in {topic}", is_compacted)
