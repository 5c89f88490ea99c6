"""What the demo stands on: a Kafka, topics of its own, folders; all gone at the end."""

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from clipper_agents.broker import EmbeddedBroker
from clipper_agents.kafka.topics import delete_topics, existing_topics
from clipper_agents.settings import load_settings
from clipper_topics.connection import KafkaConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Where the demo takes place.

    Attributes:
        overrides: Settings, `section.key` to text.
        embedded: Whether its Kafka was started for it.
    """

    overrides: Mapping[str, str]
    embedded: bool


@asynccontextmanager
async def kafka_ground(environ: Mapping[str, str]) -> AsyncIterator[Ground]:
    """An embedded Kafka, or topics with a prefix of their own on the one that the environment names.

    Raises:
        BrokerNotStarted: there is no Java, or no Kafka to download.
    """
    settings = load_settings(None, environ)
    if settings.kafka.bootstrap is None:
        broker = EmbeddedBroker()
        try:
            await _to_its_end(asyncio.create_task(asyncio.to_thread(broker.start)))
            yield Ground(overrides={"kafka.bootstrap": broker.bootstrap}, embedded=True)
        finally:
            await asyncio.to_thread(broker.stop)
    else:
        prefix = f"demo-{secrets.token_hex(4)}"
        try:
            yield Ground(overrides={"kafka.prefix": prefix}, embedded=False)
        finally:
            await _remove(settings.connection(environ), prefix)


@contextmanager
def work_folder() -> Iterator[Path]:
    """A temporary folder for models and tables."""
    with tempfile.TemporaryDirectory(prefix="clipper-demo-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


async def _remove(connection: KafkaConnection, prefix: str) -> None:
    await delete_topics(connection, list(await existing_topics(connection, prefix)))


async def _to_its_end(task: "asyncio.Task[object]") -> None:
    """Wait for a start that must not be left halfway, even when we are cancelled meanwhile."""
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
