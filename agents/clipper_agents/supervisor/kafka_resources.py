"""What the hosts of a version need on Kafka, and what is taken away when the version is gone."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from clipper_agents.kafka.consumer_groups import EMPTY_WITHIN_S, delete_group, members_of, remove_members, unread
from clipper_agents.kafka.errors import KafkaUnreachable
from clipper_agents.kafka.topics import delete_topics, ensure_topics
from clipper_agents.observability.logging import event
from clipper_stream.errors import SetupError
from clipper_topics.catalogue import BY_DEFAULT, Catalogue, TopicCreation
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ModelManifest

log = logging.getLogger(__name__)


class KafkaResources:
    """Requests topics and consumer groups of versions; a group has `empty_within_s` to be empty at the end.

    All methods raise `KafkaUnreachable` while no broker answers. A missing right is logged, and what needs it left out.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        catalogue: Catalogue,
        creation: TopicCreation = BY_DEFAULT,
        empty_within_s: float = EMPTY_WITHIN_S,
    ) -> None:
        self._kafka, self._catalogue, self._creation = kafka, catalogue, creation
        self._empty_within_s = empty_within_s

    async def provide(self, model: ModelManifest) -> None:
        """See that there is a requests topic with a partition a replica at least."""
        await ensure_topics(self._kafka, self._catalogue, [model], self._creation)

    async def is_consumed(self, model: ModelManifest) -> bool:
        """Whether its hosts have finished every request; True when nobody can tell because a right is missing."""
        open_requests = 0
        try:
            with _refusals_logged("nobody sees whether all requests are finished", model):
                open_requests = await unread(self._kafka, *self._names(model))
        except KafkaUnreachable:
            return False
        return not open_requests

    async def has_others(self, model: ModelManifest, instances: Sequence[str]) -> bool:
        """Whether other hosts than these are in the group: they have loaded the model."""
        return not await members_of(self._kafka, self._names(model)[0]) <= {*instances}

    async def evict(self, model: ModelManifest, instances: Sequence[str]) -> None:
        """Hosts of these names have ended: the others get their partitions now, not when their session times out."""
        if instances:
            with _refusals_logged("ended hosts leave when their session times out", model):
                await remove_members(self._kafka, self._names(model)[0], instances)

    async def remove(self, model: ModelManifest) -> None:
        """Delete the group and the requests topic, unless hosts that somebody else started are in the group."""
        group, topic = self._names(model)
        stays = f"version stays on Kafka: give this user the rights of an operator, or delete {group} and {topic}"
        with _refusals_logged(stays, model):
            if await delete_group(self._kafka, group, self._empty_within_s):
                await delete_topics(self._kafka, [topic])
                event(log, "version removed", model=model.ref)
                return
            text = "version stays on Kafka: hosts that are not ours are in its group, end them and delete both"
            event(log, text, logging.WARNING, model=model.ref, group=group, topic=topic)

    def _names(self, model: ModelManifest) -> tuple[str, str]:
        catalogue = self._catalogue
        return catalogue.host_group(model.name, model.version), catalogue.requests(model.name, model.version)


@contextmanager
def _refusals_logged(what: str, model: ModelManifest) -> Iterator[None]:
    try:
        yield
    except KafkaUnreachable:
        raise
    except SetupError as error:
        event(log, what, logging.WARNING, model=model.ref, reason=error)
