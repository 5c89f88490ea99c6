"""Deployments with topics of their own on a Kafka that others use too; mostly one that learns in every way there is."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Consumer, TopicPartition
from e2e.any_client import AnyClient
from e2e.programs import Program, RunningProcess, Shell, environment_of, until

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

FOLDER = Path(__file__).parent
CONFIGURATION, OVERLOAD, GATEWAY = (FOLDER / f"{name}.toml" for name in ("kills", "overload", "gateway"))


class Deployment(NamedTuple):
    """Its topics and folders, and how to start something there; routers keep their data in `data`."""

    client: AnyClient
    catalogue: Catalogue
    folder: Path
    data: Path
    environ: dict[str, str]
    configuration: Path = CONFIGURATION

    @classmethod
    def on(cls, kafka: KafkaConnection, catalogue: Catalogue, folder: Path, configuration=CONFIGURATION, **environ):
        folder.mkdir(parents=True, exist_ok=True)
        environ = environment_of(kafka, catalogue, **environ)
        Shell(folder, environ)("apply", "--config", configuration)
        return cls(AnyClient(kafka.bootstrap), catalogue, folder, folder / "data", environ, configuration)

    @property
    def applications(self) -> dict[str, Any]:
        return {one["name"]: one for one in tomllib.loads(self.configuration.read_text())["application"]}

    def start(self, *arguments: str, through: Sequence[str] = (), **settings: object) -> Program:
        """A command, with settings of which the first `_` stands for a dot."""
        given = {"router_data_dir": self.data, **settings}
        said = [f"--set={name.replace('_', '.', 1)}={value}" for name, value in given.items()]
        words = (*arguments, "--config", str(self.configuration), *said)
        return Program(*words, folder=self.folder, environ=self.environ, through=through)

    def worker(self, *arguments: str, instance: str | None = None, **options: Any) -> Program:
        """A worker, named for example `router-0`."""
        return self.start("worker", *arguments, "--instance", instance or f"{arguments[0]}-0", **options)

    def behind(self, group: str, topic: str) -> Mapping[int, int]:
        """How many records the group has not committed, by partition, where there are any."""
        consumer = Consumer({"bootstrap.servers": self.client.bootstrap, "group.id": group})
        places = [TopicPartition(topic, number) for number in range(self.client.partitions(topic))]
        lags = {
            one.partition: consumer.get_watermark_offsets(one, timeout=60)[1] - max(0, one.offset)
            for one in consumer.committed(places, timeout=60)
        }
        consumer.close()
        return {partition: lag for partition, lag in lags.items() if lag}


def running(program: Program, words: str) -> list[RunningProcess]:
    """What runs below a program, with these words in its command."""
    return [one for one in program.children() if words in one.command and one.runs]


def child(program: Program, words: str) -> RunningProcess:
    """The first of them, once there is one."""
    return until(words, lambda: running(program, words))[0]
