"""An answer as a caller sees it, and what a caller says in a query and in a feedback, over Kafka or HTTP."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import msgspec

from clipper_topics.prediction import Missing, ModelAnswer, PolicyRef, Prediction


class QueryOptions(TypedDict, total=False):
    """What a query may say beside its application and its input; each may be left out. See `Client.predict`."""

    context: str | None
    deadline_ms: float | None
    models: Sequence[str] | None
    features: Sequence[float] | None


class Truth(TypedDict, total=False):
    """What a feedback says; exactly one of the three. See `Client.feedback`."""

    label: Any
    loss: float
    reward: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to one query.

    Attributes:
        query_id: Id of the query, minted by the client unless the caller gave one.
        output: The output for a query of one row; None for one of several.
        outputs: The outputs, one a row, for a query of several rows; None for one of a single row.
        confidence: Share of the asked models that agree, in [0, 1]; over several rows the least.
        default: True when the application's default was given instead of an output.
        reason: Why the default was given, a key of `clipper_topics.prediction.REASONS`.
        explanation: Why the default was given, in words.
        policy: Who chose the models; None when nothing was chosen.
        models: The models that answered, with their outputs and propensities.
        missing: The models that were asked and did not answer in time.
        latency_s: From the call until the answer was here, in seconds.
        partition: Partition of the query, its prediction and its feedback; None over HTTP.
        key: Key of the query's record; None over HTTP.
    """

    query_id: str
    application: str
    context: str | None
    output: Any
    outputs: list[Any] | None
    confidence: float
    default: bool
    reason: str | None
    explanation: str | None
    policy: PolicyRef | None = field(repr=False)
    models: tuple[ModelAnswer, ...]
    missing: tuple[Missing, ...] = field(repr=False)
    latency_s: float
    partition: int | None = None
    key: bytes | None = field(default=None, repr=False)


def answer_of(
    prediction: Prediction, *, latency_s: float, partition: int | None = None, key: bytes | None = None
) -> Answer:
    """The answer that a prediction record holds."""
    return Answer(
        query_id=prediction.query_id,
        application=prediction.application,
        context=prediction.context,
        output=None if prediction.output is msgspec.UNSET else prediction.output,
        outputs=None if prediction.outputs is msgspec.UNSET else prediction.outputs,
        confidence=prediction.confidence,
        default=prediction.default,
        reason=prediction.reason,
        explanation=prediction.explanation,
        policy=prediction.policy,
        models=tuple(prediction.models),
        missing=tuple(prediction.missing),
        latency_s=latency_s,
        partition=partition,
        key=key,
    )


async def all_answers(asked: Iterable[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """The answers in order; the first error ends all calls."""
    tasks = [asyncio.ensure_future(one) for one in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
