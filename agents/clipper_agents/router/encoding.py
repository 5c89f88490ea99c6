"""Answers to prediction records."""

from dataclasses import replace
from typing import Any

import msgspec

from clipper_stream.routing import Answer
from clipper_topics import codec
from clipper_topics.catalogue import LARGEST_RECORD_BYTES
from clipper_topics.prediction import Missing, ModelAnswer, PolicyRef, Prediction

MOST_BYTES = LARGEST_RECORD_BYTES - 2 * 1024 * 1024
"""Of a prediction; the key, which is the query's, needs room as well."""
JSON_HEADERS: list[tuple[str, bytes]] = [(codec.CONTENT_TYPE, codec.JSON.encode())]


def headers_of(content_type: str) -> list[tuple[str, bytes]]:
    """The headers of a record of this content type."""
    return codec.MSGPACK_HEADERS if content_type == codec.MSGPACK else JSON_HEADERS


def encode_answer(answer: Answer, most_bytes: int = MOST_BYTES) -> tuple[Answer, bytes]:
    """The answer, and its prediction as bytes in the content type of its query.

    An answer that no record can hold becomes a default without outputs, because its query has to end somehow.

    Args:
        answer: What was decided.
        most_bytes: Size of the prediction at most.
    """
    encoded = _encoded(answer)
    if len(encoded) > most_bytes:
        answer = _too_large(answer, len(encoded), most_bytes)
        encoded = _encoded(answer)
    return answer, encoded


def _encoded(answer: Answer) -> bytes:
    return codec.predictions.encode(prediction_of(answer), answer.query.content_type)


def _too_large(answer: Answer, size_bytes: int, most_bytes: int) -> Answer:
    size = f"the answer takes {size_bytes} bytes, a record has at most {most_bytes}"
    return replace(
        answer,
        outputs=[] if answer.query.packed else [answer.application and answer.application.default_output],
        confidence=0.0,
        reason="errors",
        explanation=f"{size}: ask for fewer rows at once",
        served_propensity=None,
        used=(),
        unused=(),
    )


def prediction_of(answer: Answer) -> Prediction:
    """The prediction record of an answer."""
    query, application = answer.query, answer.application
    decided = answer.used or answer.unused
    output, outputs = _one_or_many(answer.outputs, query.packed)
    return Prediction(
        query_id=query.query_id,
        application=query.application,
        context=query.context,
        output=output,
        outputs=outputs,
        confidence=answer.confidence,
        default=answer.default,
        reason=answer.reason,
        explanation=answer.explanation,
        policy=_policy(answer) if application is not None and decided else None,
        served_propensity=answer.served_propensity if decided else None,
        models=[_model_answer(use, query.packed) for use in answer.used],
        missing=[
            Missing(
                model=(name := model.ref.partition(":"))[0],
                version=name[2],
                propensity=model.propensity,
                reason=model.reason,
                explanation=model.explanation,
                served=model.served,
            )
            for model in answer.unused
        ],
        query_offset=query.offset,
        queried_at_ms=round(query.queried_at_s * 1000),
        predicted_at_ms=round(answer.decided_at_s * 1000),
        latency_ms=round((answer.decided_at_s - query.queried_at_s) * 1000, 3),
    )


def _policy(answer: Answer) -> PolicyRef:
    application = answer.application
    assert application is not None
    name = application.policy.name if answer.query.models is None else NAMED
    return PolicyRef(name=name, version=application.revision)


NAMED = "named"
"""Stands for the policy in the decision about a query that named its models: such a decision is not learned from."""


def _model_answer(use: Any, packed: bool) -> ModelAnswer:
    name, _, version = use.ref.partition(":")
    output, outputs = _one_or_many(use.outputs, packed)
    return ModelAnswer(
        model=name,
        version=version,
        propensity=use.propensity,
        output=output,
        outputs=outputs,
        latency_ms=round(use.latency_s * 1000, 3),
        cached=use.cached,
        served=use.served,
    )


def _one_or_many(outputs: list[Any], packed: bool) -> tuple[Any, Any]:
    return (msgspec.UNSET, outputs) if packed else (outputs[0], msgspec.UNSET)
