"""Consumers, producers and admin clients are built in two packages, so that each has one set of settings.

They were built in sixteen places, and had drifted apart: one reading of the control topic believed a manifest of an
aborted transaction, which another did not; one waited ten seconds for a frozen broker, another forty.
"""

import pytest
from code_rules import Module, built_kafka_clients, product

BUILDERS = ("clipper_stream.client.", "clipper_agents.kafka.")

SAMPLES = [
    "consumer = AIOKafkaConsumer(bootstrap_servers='kafka:9092')",
    "async def f():\n    async with aiokafka.AIOKafkaProducer(acks='all') as producer:\n        pass",
    "make = partial(AIOKafkaAdminClient, client_id='x')",
]


def test_kafka_clients_are_built_in_two_packages_only() -> None:
    others = [module for module in product().values() if not module.name.startswith(BUILDERS)]
    assert built_kafka_clients(others) == []


def test_the_two_packages_build_them() -> None:
    """Else the test above would pass because it finds nothing."""
    building = {line.rpartition(":")[0] for line in built_kafka_clients(product().values())}
    assert building == {"clipper_stream.client.kafka", "clipper_agents.kafka.clients"}


@pytest.mark.parametrize("source", SAMPLES)
def test_the_rule_finds_a_client_that_is_built_elsewhere(source: str) -> None:
    assert len(built_kafka_clients([Module("clipper_agents.status.collect", source)])) == 1


@pytest.mark.parametrize(
    "source", ["def stop(consumer: AIOKafkaConsumer) -> None: ...", "consumer: AIOKafkaConsumer | None = None"]
)
def test_the_rule_lets_a_client_be_used_and_named(source: str) -> None:
    assert built_kafka_clients([Module("clipper_agents.status.collect", source)]) == []
