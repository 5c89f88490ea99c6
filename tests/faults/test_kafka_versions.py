"""Apache Kafka from 3.7 on: `kafka check` finds everything, and nothing is lost when a router and a host are killed."""

import json
from functools import partial

import jgo
import pytest
from e2e.programs import environment_of, run_here
from faults.deployment import Deployment
from faults.test_kills import AGAIN, KILLED, LOST, Kills
from kafka_fixture import temporary_topics

from clipper_agents.broker import EmbeddedBroker, embedded_kafka
from clipper_agents.broker.runtime import LOGGING, KafkaRuntime, find_runtime

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
NEWEST = "4.4.0"
VERSIONS = [
    "3.7.2",
    *(pytest.param(version, marks=pytest.mark.long) for version in ("3.9.1", "4.0.0", "4.2.2", NEWEST)),
]


def runtime_of(version: str) -> KafkaRuntime:
    """The jars of a version of Kafka beside the Java of ours."""
    artifacts = [*jgo.resolve(f"org.apache.kafka:kafka_2.13:{version}"), *jgo.resolve(LOGGING)]
    return KafkaRuntime(find_runtime().java, tuple(artifact.resolve() for artifact in artifacts))


@pytest.mark.parametrize("version", VERSIONS)
def test_routers_that_are_killed_on_other_versions_of_kafka_lose_nothing(version, tmp_path, monkeypatch, fault_report):
    monkeypatch.setattr(embedded_kafka, "find_runtime", partial(runtime_of, version))
    with EmbeddedBroker() as broker, temporary_topics(broker.connection) as catalogue:
        found = run_here(
            "kafka", "check", "--json", folder=tmp_path, environ=environment_of(broker.connection, catalogue)
        )
        assert {row["state"] for row in map(json.loads, found.out.splitlines())} == {"fine"}, found
        with Kills(Deployment.on(broker.connection, catalogue, tmp_path), fault_report, 3712) as kills:
            verdict = kills.do(partial(kills.child, "router"), {KILLED: 1, LOST: 1, AGAIN: 1}, short=True)
        kills.conclude_ways(f"the router, on Kafka {version}", verdict)
