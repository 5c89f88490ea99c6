"""Writes what the steward saw change: the newest detection of each version, once."""

from clipper_agents.control.writer import ControlWriter, as_control_writer
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import drift_key
from clipper_topics.drift import DriftEvent


async def note_drift(connection: KafkaConnection, catalogue: Catalogue, event: DriftEvent) -> bool:
    """Write a detection, unless this one or a newer one about the version is there; whether it was written.

    Raises:
        Outpaced: other writers came between again and again.
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no control topic.
    """

    async def note(writer: ControlWriter) -> bool:
        if not is_newer(event, writer.state.drifts.get((event.application, event.model))):
            return False
        await writer.write([(drift_key(event.application, event.model), codec.drifts.encode(event))])
        return True

    return await as_control_writer(connection, catalogue, note)


def is_newer(event: DriftEvent, known: DriftEvent | None) -> bool:
    """Whether a detection is later in the logs than the one that is known."""
    return known is None or event.at_ms > known.at_ms
