"""Encodes answers as records of the predictions and audits topics."""

import contextlib
from functools import lru_cache
from typing import Any

from msgspec import UNSET

from clipper_stream.query import Application, DecodedQuery, Failure, MissingModel, ModelUse, QueryAnswer
from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.catalogue import LARGEST_RECORD_BYTES
from clipper_topics.prediction import NAMED, Missing, MissingRow, ModelAnswer, PolicyRef, Prediction

MOST_BYTES = LARGEST_RECORD_BYTES - 2 * 1024 * 1024
"""Largest prediction: key and echoed headers, which are the query's, need room as well."""
_UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""What msgspec raises for a value that JSON or msgpack cannot hold, such as an integer of more than 64 bits."""
_NO_FEATURES: list[float] = []


def encode_answer(answer: QueryAnswer, most_bytes: int = MOST_BYTES) -> tuple[QueryAnswer, bytes]:
    """Return the answer and its prediction as bytes, in the content type of its query.

    An answer that no record can hold becomes a default without outputs, because its query has to end somehow.

    Args:
        answer: What was decided.
        most_bytes: Size of the prediction at most.
    """
    try:
        encoded = _encoded(answer)
        if len(encoded) <= most_bytes:
            return answer, encoded
        size = f"the answer takes {len(encoded)} bytes, a record has at most {most_bytes}"
        why = f"{size}: ask for fewer rows at once"
    except _UNWRITABLE as error:
        why = f"the answer cannot be written as {answer.query.content_type}: {error}"
    return _default(answer, why, most_bytes)


def _default(answer: QueryAnswer, why: str, most_bytes: int) -> tuple[QueryAnswer, bytes]:
    """Return a prediction with the application's default output, or null where no record can hold that either."""
    with contextlib.suppress(*_UNWRITABLE):
        default = _without_outputs(answer, why, answer.application and answer.application.default_output)
        encoded = _encoded(default)
        if len(encoded) <= most_bytes:
            return default, encoded
    default = _without_outputs(answer, why, None)
    return default, _encoded(default)


def encode_audit(answer: QueryAnswer, most_bytes: int = MOST_BYTES) -> bytes:
    """Encode an audit in the content type of its query, without outputs where no record can hold them.

    Args:
        answer: What was asked for the log only, and came.
        most_bytes: Size of the record at most.
    """
    kind = answer.query.content_type
    try:
        encoded = codec.audits.encode(audit_of(answer), kind)
        if len(encoded) <= most_bytes:
            return encoded
        why = f"the audit takes {len(encoded)} bytes, a record has at most {most_bytes}: ask for fewer rows at once"
    except _UNWRITABLE as error:
        why = f"the audit cannot be written as {kind}: {error}"
    missing = [MissingModel(use.ref, use.propensity, use.served, Failure("error", why)) for use in answer.used]
    return codec.audits.encode(audit_of(answer._replace(used=(), missing=(*missing, *answer.missing))), kind)


def audit_of(answer: QueryAnswer) -> Audit:
    """Return the record of an audit."""
    query = answer.query
    return Audit(
        query_id=query.query_id,
        application=query.application,
        context=query.context,
        models=[_model_answer(use, query.packed) for use in answer.used],
        missing=[_missing(model) for model in answer.missing],
        query_offset=query.offset,
        audited_at_ms=round(answer.decided_at_s * 1e3),
    )


def _encoded(answer: QueryAnswer) -> bytes:
    return codec.predictions.encode(prediction_of(answer), answer.query.content_type)


def _without_outputs(answer: QueryAnswer, why: str, default_output: Any) -> QueryAnswer:
    return answer._replace(
        outputs=[] if answer.query.packed else [default_output],
        confidence=0.0,
        failure=Failure("errors", why),
        served_propensity=None,
        used=(),
        missing=(),
    )


def prediction_of(answer: QueryAnswer) -> Prediction:
    """Return the prediction record of an answer; fields with their default value are left out."""
    pending, application, outputs, at_s, confidence, failure, served_propensity, used, missing = answer
    query = pending.query
    packed, queried_at_s = query.packed, query.queried_at_s
    prediction = Prediction(
        query_id=query.query_id,
        application=query.application,
        output=UNSET if packed else outputs[0],
        confidence=confidence,
        models=[_model_answer(use, packed) for use in used],
        query_offset=query.offset,
        queried_at_ms=round(queried_at_s * 1e3),
        predicted_at_ms=round(at_s * 1e3),
        latency_ms=round((at_s - queried_at_s) * 1e6) / 1e3,  # to microseconds; round(x, 3) takes four times as long
    )
    if used or missing:
        prediction.served_propensity = served_propensity
        prediction.features = pending.features or _NO_FEATURES
        if application is not None:
            prediction.policy = _policy(query, application)
        if missing:
            prediction.missing = [_missing(model) for model in missing]
    if packed:
        prediction.outputs = list(outputs)
    if pending.audit is not None:
        prediction.audited = True
    if query.context is not None:
        prediction.context = query.context
    if failure is not None:
        prediction.default, (prediction.reason, prediction.explanation) = True, failure
    return prediction


def _policy(query: DecodedQuery, application: Application) -> PolicyRef:
    return policy_ref(application.policy.name if query.models is None else NAMED, application.revision)


@lru_cache(maxsize=1024)
def policy_ref(name: str, version: int) -> PolicyRef:
    """Return the one record shared by all decisions of a policy and revision."""
    return PolicyRef(name=name, version=version)


@lru_cache(maxsize=4096)
def name_and_version(ref: str) -> tuple[str, str]:
    """Split a model reference into name and version."""
    name, _, version = ref.partition(":")
    return name, version


def _model_answer(use: ModelUse, packed: bool) -> ModelAnswer:
    ref, propensity, served, outputs, latency_s, cached, failures = use
    name, version = name_and_version(ref)
    answer = ModelAnswer(
        model=name,
        version=version,
        propensity=propensity,
        output=UNSET if packed else outputs[0],
        latency_ms=round(latency_s * 1e6) / 1e3,
        cached=cached,
        served=served,
    )
    if packed:
        answer.outputs = list(outputs)
        answer.missing_rows = [
            MissingRow(row=row, reason=reason, explanation=why) for row, (reason, why) in failures.items()
        ]
    return answer


def _missing(model: MissingModel) -> Missing:
    name, version = name_and_version(model.ref)
    return Missing(
        model=name,
        version=version,
        propensity=model.propensity,
        reason=model.failure.reason,
        explanation=model.failure.explanation,
        served=model.served,
    )
