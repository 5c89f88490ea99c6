"""From a plan to bytes: all that is done before the first query is sent."""

import asyncio
import secrets

from aiokafka import AIOKafkaConsumer

from clipper_loadgen.datasets import random_dataset
from clipper_loadgen.draws import fresh_count
from clipper_loadgen.plan import LoadPlan
from clipper_loadgen.script import Script, intended_times, origin_of_each, write_script
from clipper_stream.client.kafka import assigned_consumer
from clipper_stream.errors import InvalidSetting, UnknownName
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import application_key
from clipper_topics.manifests import ApplicationManifest

APPLICATION_PREFIX = application_key("")
MANIFEST_TIMEOUT_S = 10.0


async def prepare_load(plan: LoadPlan, connection: KafkaConnection, catalogue: Catalogue, partitions: int) -> Script:
    """Draw and encode a run; a plan without a data set is given rows by the application's manifest."""
    dataset = plan.dataset
    if dataset is None:
        manifest = await read_application(connection, catalogue, plan.applications[0])
        fresh = fresh_count(origin_of_each(plan, len(intended_times(plan))))
        dataset = random_dataset(manifest.input, fresh, plan.seed)
    return await asyncio.to_thread(write_script, plan, dataset, partitions=partitions, run=secrets.token_hex(4))


async def read_application(connection: KafkaConnection, catalogue: Catalogue, name: str) -> ApplicationManifest:
    """The newest manifest of an application."""
    consumer = await assigned_consumer(connection, catalogue.control, at_end=False, isolation_level="read_committed")
    try:
        found = await asyncio.wait_for(_manifests(consumer), MANIFEST_TIMEOUT_S)
    except TimeoutError as error:
        raise InvalidSetting(f"{catalogue.control} could not be read within {MANIFEST_TIMEOUT_S:.0f} s") from error
    finally:
        await consumer.stop()
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise UnknownName(f"no application {name!r} is registered; registered: {known}")
    return codec.applications.decode(found[name])


async def _manifests(consumer: AIOKafkaConsumer) -> dict[str, bytes]:
    """Values of the application manifests by name; an empty value removes one."""
    ends = await consumer.end_offsets(consumer.assignment())
    found: dict[str, bytes] = {}
    while any([await consumer.position(partition) < end for partition, end in ends.items()]):
        for records in (await consumer.getmany(timeout_ms=100)).values():
            for record in records:
                key = record.key or b""
                if key.startswith(APPLICATION_PREFIX):
                    found[key.removeprefix(APPLICATION_PREFIX).decode("utf-8", "replace")] = record.value or b""
    return {name: value for name, value in found.items() if value}
