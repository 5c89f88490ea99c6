"""Reads the control topic: the manifests in force, and the changes that led to them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from clipper_agents.control.manifests import Manifests
from clipper_agents.kafka.admin import TIMEOUT_S, unreachable
from clipper_agents.kafka.errors import TopicMismatch
from clipper_agents.kafka.topics import existing_topics
from clipper_agents.kafka.whole_topic import committed_consumer, whole_partitions
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.change import Change
from clipper_topics.codec import UndecodableRecord
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import change_key, drift_key, is_drift
from clipper_topics.drift import DriftEvent

CHANGES = b"change/"


@dataclass(slots=True)
class ControlState:
    """What the control topic says, up to its end at some moment.

    Attributes:
        manifests: Those in force.
        changes: By application and revision. A record that is no change, or not under its own key, is not among them.
        drifts: The newest detection by application and version, likewise.
    """

    manifests: Manifests = field(default_factory=Manifests)
    changes: dict[str, dict[int, Change]] = field(default_factory=dict)
    drifts: dict[tuple[str, str], DriftEvent] = field(default_factory=dict)

    def apply(self, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Take one record in."""
        if is_drift(key):
            found = read_drift(key, value, headers)
            if found is not None:
                self.drifts[found.application, found.model] = found
            return
        if key is None or not key.startswith(CHANGES):
            self.manifests.apply(key, value, headers)
            return
        try:
            change = codec.changes.decode(value, headers)
        except UndecodableRecord:
            return
        if change_key(change.application, change.revision) == key:
            self.changes.setdefault(change.application, {})[change.revision] = change

    def history(self, application: str) -> dict[int, Change]:
        """The application's changes, oldest first; also of one that was deleted."""
        return dict(sorted(self.changes.get(application, {}).items()))

    def current(self, application: str) -> int:
        """Revision of the application as it is, 0 when there is none."""
        published = self.manifests.applications.get(application)
        return 0 if published is None else published.revision

    def revision(self, application: str) -> int:
        """The last revision that was ever given, 0 for none; a deletion has one too."""
        published = self.manifests.applications.get(application)
        return max((0 if published is None else published.revision), *self.changes.get(application, {}), 0)


def read_drift(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()) -> DriftEvent | None:
    """The detection in a record; None: there is none, or it is of another version than its key says."""
    try:
        found = codec.drifts.decode(value, headers)
    except UndecodableRecord:
        return None
    return found if drift_key(found.application, found.model) == key else None


async def read_control(connection: KafkaConnection, catalogue: Catalogue) -> ControlState:
    """Read the whole control topic.

    Raises:
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no control topic.
    """
    await require_control_topic(connection, catalogue)
    consumer = committed_consumer(connection)
    try:
        await consumer.start()
        return await control_state(consumer, catalogue)
    except (KafkaError, TimeoutError) as error:
        raise await unreachable(connection, error) from error
    finally:
        await consumer.stop()


async def read_manifests(connection: KafkaConnection, catalogue: Catalogue) -> Manifests:
    """The manifests alone; errors as `read_control`."""
    return (await read_control(connection, catalogue)).manifests


async def control_state(consumer: AIOKafkaConsumer, catalogue: Catalogue) -> ControlState:
    """The control topic up to its end now, by a consumer that was started.

    Raises:
        KafkaError: no broker answers.
        TimeoutError: it cannot be read within `TIMEOUT_S`.
    """
    state = ControlState()
    async with asyncio.timeout(TIMEOUT_S):
        for record in await whole_partitions(consumer, [TopicPartition(catalogue.control, 0)]):
            state.apply(record.key, record.value, record.headers)
    return state


async def require_control_topic(connection: KafkaConnection, catalogue: Catalogue) -> dict[str, int]:
    """Partitions of the deployment's topics by name.

    Raises:
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no control topic.
    """
    found = await existing_topics(connection, catalogue.prefix)
    if catalogue.control not in found:
        raise TopicMismatch(
            f"topic {catalogue.control} does not exist, or this user may not see it: "
            "run `clipper-stream topics create` first, or give it the rights of its role"
        )
    return found
