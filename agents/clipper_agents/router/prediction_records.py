"""Encodes answers as records of the predictions and audits topics."""

import contextlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import UNSET

from clipper_stream.query import (
    Application,
    BlockAnswers,
    DecodedQuery,
    Failure,
    MissingModel,
    ModelUse,
    QueryAnswer,
)
from clipper_stream.selection.distribution import Decision
from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.catalogue import LARGEST_RECORD_BYTES
from clipper_topics.prediction import NAMED, Missing, MissingRow, ModelAnswer, PolicyRef, Prediction

MOST_BYTES = LARGEST_RECORD_BYTES - 2 * 1024 * 1024
"""Largest prediction: key and echoed headers, which are the query's, need room as well."""
_UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""What msgspec raises for a value that JSON or msgpack cannot hold, such as an integer of more than 64 bits."""
_NO_FEATURES: list[float] = []
LEAST_S = 0.001
"""An earlier time is left out of a record, as the default of its field."""


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


def encode_block(answers: BlockAnswers, most_bytes: int = MOST_BYTES) -> list[bytes] | None:
    """Return the predictions about queries of a block as bytes; None where one of them has to be looked at by itself.

    The records are those that `encode_answer` makes: they differ in few fields, so one of a kind is encoded with holes
    there, which are filled for each.
    """
    if min(answers.block.queries.queried_at_s) < LEAST_S:
        return None
    try:
        values = _refusals(answers) if answers.refusals else _model_answers(answers)
    except _UNWRITABLE:
        return None
    return None if max(map(len, values)) > most_bytes else values


def _model_answers(answers: BlockAnswers) -> list[bytes]:
    block, slots, at_s, _ = answers
    queries, application, asked_s = block.queries, block.application, block.asked_at_s
    kind, dumps = queries.content_type, _DUMPS[queries.content_type]
    policy = application.policy.name, application.revision
    forms: dict[tuple[int, bool], bytes] = {}
    at_ms, values = dumps(round(at_s * 1e3)), list[bytes]()
    for slot in slots:
        arrived_s, queried_s, decision = block.arrived_s[slot], queries.queried_at_s[slot], block.decisions[slot]
        model_ms = round((arrived_s - asked_s) * 1e6) / 1e3 if arrived_s else 0.0
        form = forms.get((id(decision), arrived_s > 0.0))
        if form is None:
            form = _model_form(application.name, policy, decision, kind, cached=not arrived_s)
            forms[id(decision), arrived_s > 0.0] = form
        output, query_id = dumps(block.outputs[slot]), dumps(queries.query_ids[slot])
        times = dumps(round(queried_s * 1e3)), at_ms, dumps(round((at_s - queried_s) * 1e6) / 1e3)
        values.append(form % (query_id, output, output, dumps(model_ms), dumps(queries.offsets[slot]), *times))
    return values


def _refusals(answers: BlockAnswers) -> list[bytes]:
    block, slots, at_s, refusals = answers
    queries, application = block.queries, block.application
    dumps = _DUMPS[queries.content_type]
    form = _refused_form(application.name, refusals[0].reason, queries.content_type)
    at_ms, default, values = dumps(round(at_s * 1e3)), dumps(application.default_output), list[bytes]()
    for slot, failure in zip(slots, refusals, strict=True):
        queried_s, query_id = queries.queried_at_s[slot], dumps(queries.query_ids[slot])
        times = dumps(round(queried_s * 1e3)), at_ms, dumps(round((at_s - queried_s) * 1e6) / 1e3)
        values.append(form % (query_id, default, dumps(failure.explanation), dumps(queries.offsets[slot]), *times))
    return values


_DUMPS: Mapping[str, Callable[[Any], bytes]] = {
    codec.JSON: msgspec.json.Encoder().encode,
    codec.MSGPACK: msgspec.msgpack.Encoder().encode,
}
_HOLE: Any = msgspec.Raw(b"\0hole\0")
"""Stands in a field that each record of a block fills in its own way."""


@lru_cache(maxsize=1024)
def _model_form(application: str, policy: tuple[str, int], decision: Decision, kind: str, *, cached: bool) -> bytes:
    """Return a prediction with holes for id, output, the model's output and latency, offset, times and latency."""
    (ref,), (propensity,) = decision.models, decision.propensities
    name, version = name_and_version(ref)
    answer = ModelAnswer(
        model=name, version=version, propensity=propensity, output=_HOLE, latency_ms=_HOLE, cached=cached
    )
    form = _form(application)
    form.confidence, form.models, form.policy = 1.0, [answer], policy_ref(*policy)
    form.served_propensity = decision.served_propensity
    return _with_holes(form, kind)


@lru_cache(maxsize=1024)
def _refused_form(application: str, reason: str, kind: str) -> bytes:
    """Return a prediction with holes for id, output, explanation, offset, times and latency."""
    form = _form(application)
    form.confidence, form.default, form.reason, form.explanation = 0.0, True, reason, _HOLE
    return _with_holes(form, kind)


def _form(application: str) -> Prediction:
    return Prediction(
        query_id=_HOLE,
        application=application,
        output=_HOLE,
        query_offset=_HOLE,
        queried_at_ms=_HOLE,
        predicted_at_ms=_HOLE,
        latency_ms=_HOLE,
    )


def _with_holes(form: Prediction, kind: str) -> bytes:
    return codec.predictions.encode(form, kind).replace(b"%", b"%%").replace(bytes(_HOLE), b"%b")


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
