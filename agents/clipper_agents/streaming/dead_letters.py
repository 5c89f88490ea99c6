"""Records that could not be used, kept with the reason, so that nothing is lost without a word."""

from collections.abc import Iterable
from typing import Any

from aiokafka import ConsumerRecord

from clipper_agents.streaming.outbox import Outbox
from clipper_topics.catalogue import LARGEST_RECORD_BYTES
from clipper_topics.dead_letter import dead_letter_headers

KEPT_BYTES = LARGEST_RECORD_BYTES // 2
"""Of a value. More than that only a broker with other limits than the default lets in; the key and the headers, among
them the message, need room as well."""


async def send_dead_letters(
    outbox: Outbox, topic: str, refused: Iterable[tuple[ConsumerRecord[Any, Any], BaseException]]
) -> None:
    """Keep the records; they are safe when this returns, and may be acknowledged.

    A value of more than `KEPT_BYTES` is cut: a record that no topic takes must not stop those behind it.

    Args:
        outbox: Sends them.
        topic: Name of the dead letters' topic, of one partition.
        refused: Each record, and why it was refused.
    """
    letters = [
        (
            record.key,
            record.value and record.value[:KEPT_BYTES],
            [*record.headers, *dead_letter_headers(record.topic, record.partition, record.offset, error)],
        )
        for record, error in refused
    ]
    if letters:
        await outbox.send(topic, 0, letters)
