"""Whatever is killed, every query is answered, and every feedback counts exactly once.

The selection table is compared, bit for bit, with what `oracle` makes of the logs.
"""

import os
import random
import shutil
import signal
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import oracle
import pytest
from confluent_kafka import Consumer, TopicPartition
from e2e.any_client import AnyClient, Record
from e2e.programs import Program, RunningProcess, environment, run, until
from e2e.traffic import Traffic

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

CONFIGURATION = Path(__file__).with_name("kills.toml")
APPLICATIONS = {one["name"]: one for one in tomllib.loads(CONFIGURATION.read_text())["application"]}


def check_logs_and_table(client: AnyClient, prefix: str) -> list[Record]:
    """Every query is answered, no two answers differ, and the table is the fold of the logs. The predictions."""
    predictions, changelog = f"{prefix}.predictions", f"{prefix}.router-selection-changelog"
    answers = client.read(predictions)
    by_query: dict[tuple[int, int], set[bytes | None]] = {}
    for one in answers:
        by_query.setdefault((one.partition, one.content["query_offset"]), set()).add(one.value)
    assert by_query.keys() == {(one.partition, one.offset) for one in client.read(f"{prefix}.queries")}
    assert all(len(values) == 1 for values in by_query.values())

    def complete() -> tuple[dict[oracle.RowKey, oracle.Row], list[Record]] | None:
        feedback = client.read(f"{prefix}.feedback")
        table = oracle.table(client.read(changelog))
        return (table, feedback) if oracle.positions(table) == {one.partition: one.offset for one in feedback} else None

    found = until("all feedback is in the table", complete)
    assert found is not None
    table, feedback = found
    expected = oracle.fold(answers, feedback, APPLICATIONS)
    assert {key: row.bits for key, row in table.items()} == {key: row.bits for key, row in expected.items()}
    applied: Counter[str] = Counter()
    for (application, _, _), row in table.items():
        applied[application] += row.applied
    assert min(applied[application] for application in APPLICATIONS) > 10, (
        "enough was learned for this to say something"
    )
    return answers


def defaults(answers: list[Record]) -> Counter[str]:
    return Counter(one.content["reason"] for one in answers if one.content.get("default"))


def committed(client: AnyClient, group: str, topic: str, partitions: int) -> dict[int, int]:
    """Where the group goes on reading, by partition."""
    consumer = Consumer({"bootstrap.servers": client.bootstrap, "group.id": group})
    found = consumer.committed([TopicPartition(topic, number) for number in range(partitions)], timeout=60)
    consumer.close()
    return {one.partition: one.offset for one in found}


def worker(*arguments: str, folder: Path, environ: dict[str, str]) -> Program:
    settings = ("--config", str(CONFIGURATION), "--set", f"router.data_dir={folder / 'data'}")
    return Program("worker", *arguments, *settings, folder=folder, environ=environ)


KILLS = [
    # whether the data directory is wiped afterwards; and how many queries are asked from when on, before the kill
    (False, "ready", range(40, 200)),
    (True, "ready", range(40, 200)),
    (False, "started", range(100, 300)),
    (True, "started", range(100, 300)),
    (False, "ready", range(40, 200)),
]


def test_a_router_that_is_killed_again_and_again_loses_and_repeats_nothing(kafka, catalogue, tmp_path):
    environ = environment(
        KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap,
        CLIPPER_KAFKA_PREFIX=catalogue.prefix,
        CLIPPER_KAFKA_PARTITIONS=str(catalogue.partitions),
    )
    rng, client, prefix = random.Random(20171), AnyClient(kafka.bootstrap), catalogue.prefix
    assert run("apply", "--config", str(CONFIGURATION), folder=tmp_path, environ=environ).code == 0
    with (
        worker("host", "slow-sum:1", "--instance", "host-0", folder=tmp_path, environ=environ) as host,
        Traffic(client, prefix, catalogue.partitions) as traffic,
    ):
        host.ready()
        for wiped, since, queries in KILLS:
            with worker("router", "--instance", "router-0", folder=tmp_path, environ=environ) as router:
                if since == "ready":
                    router.ready()
                goal = traffic.asked + rng.choice(queries)
                until("the moment to kill", lambda goal=goal: traffic.asked >= goal)
                router.signal(signal.SIGKILL)
                assert router.ended() == -signal.SIGKILL
            if wiped:
                shutil.rmtree(tmp_path / "data", ignore_errors=True)
        with worker("router", "--instance", "router-0", folder=tmp_path, environ=environ) as router:
            router.ready()
            traffic.finish()
            answers = check_logs_and_table(client, prefix)
            router.signal(signal.SIGTERM)
            assert router.ended() == 0, router.log[-4000:]
        host.signal(signal.SIGTERM)
        assert host.ended() == 0, host.log[-4000:]
    assert defaults(answers).keys() <= {"late", "arrived_late", "errors"}
    ends = Counter(one.partition for one in client.read(traffic.queries))
    assert committed(client, catalogue.router_group, traffic.queries, catalogue.partitions) == ends


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Everything that `up` starts, on an embedded Kafka."""
    with Program("up", "--config", str(CONFIGURATION), folder=tmp_path_factory.mktemp("up")) as program:
        program.ready()
        yield program


def running(program: Program, role: str) -> RunningProcess:
    """The worker of this role, another process after a restart."""
    return until(role, lambda: next((one for one in program.children() if f" worker {role} " in one.command), None))


def test_killed_workers_come_back_and_nothing_is_lost(up):
    client = AnyClient(up.ready()["bootstrap"])
    with Traffic(client, "clipper", partitions=4) as traffic, client.reading(traffic.predictions) as reading:

        def answers_by_model() -> int:
            reading.more()
            slow = [one.content for one in reading.records if one.content["application"] == "slow"]
            return sum("default" not in one for one in slow)

        for role in ("host", "router", "host", None):
            before = answers_by_model()
            until("the slow model answers", lambda before=before: answers_by_model() > before + 10)
            if role:
                killed = running(up, role)
                os.kill(killed.pid, signal.SIGKILL)
                until("it has ended", lambda killed=killed: not killed.runs)
        traffic.finish()
        answers = check_logs_and_table(client, "clipper")
    late = [one.content["explanation"] for one in answers if one.content.get("reason") == "late"]
    assert "no output of slow-sum:1 within 4000 ms of the query's timestamp" in late
    assert defaults(answers).keys() <= {"late", "arrived_late", "errors"}


def test_nothing_outlives_a_killed_supervisor(up):
    started = up.children()
    assert sum("kafka.Kafka" in process.command for process in started) == 1
    assert sum(" worker " in process.command for process in started) == 2
    up.signal(signal.SIGKILL)
    assert up.ended() == -signal.SIGKILL
    until("nothing is left", lambda: not any(process.runs for process in started), 30.0)
