"""What the application under load looks like: its manifest, read from the control topic."""

import asyncio

from aiokafka import AIOKafkaConsumer

from clipper_loadgen.answers import assigned_consumer
from clipper_stream.errors import InvalidSetting, UnknownName
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ApplicationManifest

TIMEOUT_S = 10.0
KEY = "application/"


async def read_application(connection: KafkaConnection, catalogue: Catalogue, name: str) -> ApplicationManifest:
    """The newest manifest of an application.

    Raises:
        UnknownName: no such application is registered.
        InvalidSetting: the control topic does not exist, or cannot be read within ten seconds.
        UndecodableRecord: the manifest cannot be decoded.
    """
    consumer = await assigned_consumer(connection, catalogue.control, at_end=False)
    try:
        found = await asyncio.wait_for(_newest(consumer), TIMEOUT_S)
    except TimeoutError as error:
        raise InvalidSetting(f"{catalogue.control} could not be read within {TIMEOUT_S:.0f} s") from error
    finally:
        await consumer.stop()
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise UnknownName(f"no application {name!r} is registered; registered: {known}")
    return codec.applications.decode(found[name])


async def _newest(consumer: AIOKafkaConsumer) -> dict[str, bytes]:
    """Values of the application manifests by name; an empty value removes one."""
    ends = await consumer.end_offsets(consumer.assignment())
    found: dict[str, bytes] = {}
    while any([await consumer.position(partition) < end for partition, end in ends.items()]):
        for records in (await consumer.getmany(timeout_ms=100)).values():
            for record in records:
                key = (record.key or b"").decode("utf-8", "replace")
                if key.startswith(KEY):
                    found[key.removeprefix(KEY)] = record.value or b""
    return {name: value for name, value in found.items() if value}
