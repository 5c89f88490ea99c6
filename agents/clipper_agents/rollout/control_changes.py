"""Carries the steward's decisions out: the same changes that an operator makes, on the revision that was looked at."""

from collections.abc import Callable, Mapping
from typing import Any

from clipper_agents.control import changes as rules
from clipper_agents.control.change_records import Signature
from clipper_agents.control.errors import RefusedChange, StaleRevision, WriteContention
from clipper_agents.control.plan import Plan, Published
from clipper_agents.control.writer import ControlWriter, as_control_writer, change_control
from clipper_agents.rollout.decisions import Changes, Stale
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import key_of
from clipper_topics.drift import DriftEvent

BY = "rollout"
"""Who stands in the history for an automatic decision."""


class ControlChanges(Changes):
    """Writes to the control topic.

    A change that its rule refuses is one that somebody else made meanwhile, or made impossible: `Stale` as well.

    Args:
        kafka: How to reach the brokers.
        catalogue: Of the deployment.
    """

    def __init__(self, kafka: KafkaConnection, catalogue: Catalogue) -> None:
        self._kafka, self._catalogue = kafka, catalogue

    async def step(
        self, application: str, model: str, share: float, *, why: str, numbers: Mapping[str, Any], revision: int
    ) -> None:
        await self._change(lambda now: rules.step(now, application, model, share), application, why, numbers, revision)

    async def promote(
        self, application: str, model: str, *, why: str, numbers: Mapping[str, Any], revision: int
    ) -> None:
        await self._change(lambda now: rules.promote(now, application, model), application, why, numbers, revision)

    async def abort(self, application: str, model: str, *, why: str, numbers: Mapping[str, Any], revision: int) -> None:
        await self._change(lambda now: rules.abort(now, application, model), application, why, numbers, revision)

    async def retire(
        self, application: str, model: str, *, why: str, numbers: Mapping[str, Any], revision: int
    ) -> None:
        await self._change(lambda now: rules.retire(now, application, model), application, why, numbers, revision)

    async def note_drift(self, event: DriftEvent) -> bool:
        try:
            return await write_drift(self._kafka, self._catalogue, event)
        except WriteContention as error:
            raise Stale(str(error)) from error

    async def _change(
        self,
        rule: Callable[[Published], Plan],
        application: str,
        why: str,
        numbers: Mapping[str, Any],
        revision: int,
    ) -> None:
        signature = Signature(by=BY, why=why, numbers=numbers)
        try:
            await change_control(
                self._kafka,
                self._catalogue,
                lambda state: rule(state.manifests),
                signature,
                seen={application: revision},
            )
        except (StaleRevision, RefusedChange, WriteContention) as error:
            raise Stale(str(error)) from error


async def write_drift(connection: KafkaConnection, catalogue: Catalogue, event: DriftEvent) -> bool:
    """Write a detection, unless this one or a newer one about the version is there; whether it was written.

    Raises:
        WriteContention: other writers came between again and again.
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no control topic.
    """

    async def note(writer: ControlWriter) -> bool:
        if not is_newer(event, writer.state.drifts.get((event.application, event.model))):
            return False
        await writer.write([(key_of(event), codec.drifts.encode(event))])
        return True

    return await as_control_writer(connection, catalogue, note)


def is_newer(event: DriftEvent, known: DriftEvent | None) -> bool:
    """Whether a detection is later in the logs than the one that is known."""
    return known is None or event.at_ms > known.at_ms
