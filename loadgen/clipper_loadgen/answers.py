"""Answers in: predictions, decoded no further than a load generator needs."""

from collections.abc import Iterable
from typing import Any

import msgspec

from clipper_topics.codec import Codec, UndecodableRecord


class AnswerStatus(msgspec.Struct):
    """The fields of a prediction that are counted; the others are skipped, not decoded."""

    query_id: str
    default: bool = False
    reason: str | None = None


ANSWER_STATUSES = Codec(AnswerStatus)


def decode_answer(
    value: bytes | None, headers: Iterable[tuple[str, bytes]], answers: Codec[Any] = ANSWER_STATUSES
) -> Any | None:
    """The answer in a record, with as many fields as the codec decodes; None for bytes that are no prediction."""
    try:
        return answers.decode(value, headers)
    except UndecodableRecord:
        return None
