"""Answers in: predictions, decoded no further than a load generator needs."""

from collections.abc import Callable, Iterable

import msgspec
from aiokafka import AIOKafkaConsumer

from clipper_topics.codec import Codec, UndecodableRecord


class AnswerStatus(msgspec.Struct):
    """The fields of a prediction that are counted; the others are skipped, not decoded."""

    query_id: str
    default: bool = False
    reason: str | None = None

    @property
    def default_reason(self) -> str | None:
        """Why the default output was given; None for a prediction by a model."""
        return (self.reason or UNSTATED) if self.default else None


UNSTATED = "unstated"
"""Reason of a default answer that gives none."""
ANSWER_STATUSES = Codec(AnswerStatus)


def decode_answer(
    value: bytes | None, headers: Iterable[tuple[str, bytes]], answers: Codec[AnswerStatus] = ANSWER_STATUSES
) -> AnswerStatus | None:
    """The answer in a record, with as many fields as the codec decodes; None for bytes that are no prediction."""
    try:
        return answers.decode(value, headers)
    except UndecodableRecord:
        return None


async def read_answers(
    consumer: AIOKafkaConsumer,
    clock: Callable[[], float],
    on_answers: Callable[[list[AnswerStatus], float], None],
    answers: Codec[AnswerStatus] = ANSWER_STATUSES,
) -> None:
    """Read until cancelled.

    Args:
        consumer: Assigned to the predictions.
        clock: Seconds.
        on_answers: Called with the answers of one fetch and the time at which they were here.
        answers: How far a prediction is decoded.
    """
    while True:
        fetched = await consumer.getmany(timeout_ms=1_000)
        now_s = clock()
        for records in fetched.values():
            decoded = (decode_answer(record.value, record.headers, answers) for record in records)
            on_answers([answer for answer in decoded if answer is not None], now_s)
