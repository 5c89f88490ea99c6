"""Records that could not be used, kept with the reason, so that nothing is lost without a word."""

from collections.abc import Iterable
from typing import Any

from aiokafka import ConsumerRecord

from clipper_agents.streaming.outbox import Outbox
from clipper_topics.dead_letter import dead_letter_headers


async def send_dead_letters(
    outbox: Outbox, topic: str, refused: Iterable[tuple[ConsumerRecord[Any, Any], BaseException]]
) -> None:
    """Keep the records; they are safe when this returns, and may be acknowledged.

    Args:
        outbox: Sends them.
        topic: Name of the dead letters' topic, of one partition.
        refused: Each record, and why it was refused.
    """
    letters = [
        (
            record.key,
            record.value,
            [*record.headers, *dead_letter_headers(record.topic, record.partition, record.offset, error)],
        )
        for record, error in refused
    ]
    if letters:
        await outbox.send(topic, 0, letters)
