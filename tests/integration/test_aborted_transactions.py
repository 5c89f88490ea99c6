"""A manifest that was written in a transaction that did not end well is seen by nobody who reads the control topic."""

import asyncio

import pytest
from aiokafka import AIOKafkaProducer
from builders.router_deployment import publish_manifests

from clipper_agents.control.state import read_control
from clipper_agents.replay.log_ranges import KafkaLogs
from clipper_agents.replay.verify import read_known
from clipper_agents.rollout.read_comparisons import read_comparisons
from clipper_agents.status.collect import read_status
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import application_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest, Trial

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(60)]

MODELS = [ModelManifest(name="svm", version=version, uri="m:f") for version in "12"]
DIGITS, GHOST = (
    ApplicationManifest(name=name, models=["svm:1"], trials=[Trial(model="svm:2")], revision=1)
    for name in ("digits", "ghost")
)


@pytest.fixture
def haunted(kafka: KafkaConnection, catalogue: Catalogue) -> Catalogue:
    """An application was registered, and another one in a transaction that was aborted."""

    async def register() -> None:
        await publish_manifests(kafka, catalogue, [DIGITS, *MODELS])
        async with AIOKafkaProducer(**kafka.aiokafka(), transactional_id=f"{catalogue.prefix}.ghost") as producer:
            await producer.begin_transaction()
            value = codec.applications.encode(GHOST)
            await (await producer.send(catalogue.control, value, application_key(GHOST.name), partition=0))
            await producer.abort_transaction()

    asyncio.run(register())
    return catalogue


async def test_status_and_the_rollout_controller_do_not_see_it(kafka: KafkaConnection, haunted: Catalogue):
    state = await read_control(kafka, haunted)
    assert list(state.manifests.applications) == ["digits"]
    status = await read_status(kafka, haunted)
    assert list(status.applications) == ["digits"]
    assert {one.application for one in await read_comparisons(kafka, haunted, state)} == {"digits"}


async def test_a_replay_does_not_see_it(kafka: KafkaConnection, haunted: Catalogue):
    known = await read_known(KafkaLogs(kafka, haunted), haunted, 3600.0)
    assert list(known.configs) == ["digits"]
