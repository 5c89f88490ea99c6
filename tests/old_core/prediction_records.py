"""Encodes answers as records of the predictions and audits topics."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import repeat
from operator import mod
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET

from old_core import (
    Application,
    BlockAnswers,
    DecodedQuery,
    Failure,
    MissingModel,
    ModelUse,
    QueryAnswer,
    QueryBlock,
)
from old_core.in_flight import LATE
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
Dumps: TypeAlias = Callable[[Any], bytes]
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
    block, indices, _, combined, _ = answers
    dumps, count = _DUMPS[block.queries.content_type], block.count
    models, cached = list[Iterable[bytes]](), list[list[bool]]()
    for first in range(0, block.width * count, count):
        arrived_s = [block.arrived_s[first + index] for index in indices]
        models += [dumps(block.outputs[first + index]) for index in indices], _latencies(arrived_s, block, dumps)
        cached.append([not at_s for at_s in arrived_s])
    if combined:
        # equal votes are one object, which is written once
        written = {id(one): (dumps(one.output), dumps(one.confidence)) for one in combined}
        answered: Iterable[tuple[bytes, bytes]] = [written[id(one)] for one in combined]
    else:
        answered = zip(models[0], repeat(dumps(1.0)), strict=False)
    forms = _forms(block, indices, zip(*cached, strict=True))
    outputs, confidences = zip(*answered, strict=True)
    return _filled(forms, answers, dumps, outputs, confidences, *models)


def _latencies(arrived_s: Sequence[float], block: QueryBlock, dumps: Dumps) -> Iterator[bytes]:
    """Yield how long a model took, in milliseconds; what arrives together is written once."""
    asked_s, written = block.asked_at_s, {0.0: dumps(0.0)}
    for at_s in arrived_s:
        latency = written.get(at_s)
        if latency is None:
            latency = written[at_s] = dumps(round((at_s - asked_s) * 1e6) / 1e3)
        yield latency


def _forms(block: QueryBlock, indices: Sequence[int], cached: Iterable[tuple[bool, ...] | None]) -> Iterator[bytes]:
    application, kind, made = block.application, block.queries.content_type, dict[Any, bytes]()
    for index, each in zip(indices, cached, strict=True):
        decision = block.decisions[index]
        form = made.get((id(decision), each))
        if form is None:
            policy = application.policy.name, application.revision
            make = _late_form if each is None else partial(_model_form, cached=each)
            form = made[id(decision), each] = make(application.name, policy, decision, kind)
        yield form


def _refusals(answers: BlockAnswers) -> list[bytes]:
    block, failures = answers.block, answers.refusals
    kind, application = block.queries.content_type, block.application
    dumps = _DUMPS[kind]
    if block.decisions:
        forms = _forms(block, answers.indices, [None] * len(answers.indices))
    else:
        forms = repeat(_refused_form(application.name, failures[0].reason, kind))
    explanations = [dumps(failure.explanation) for failure in failures]
    return _filled(forms, answers, dumps, repeat(dumps(application.default_output)), explanations)


def _filled(
    forms: Iterable[bytes], answers: BlockAnswers, dumps: Dumps, outputs: Iterable[bytes], *others: Iterable[bytes]
) -> list[bytes]:
    """Fill the holes of each form: its id, output, what is given besides, its offset, times and latency."""
    queries, at_s = answers.block.queries, answers.decided_at_s
    ids = [dumps(queries.query_ids[index]) for index in answers.indices]
    offsets = [dumps(queries.offsets[index]) for index in answers.indices]
    queried_s = [queries.queried_at_s[index] for index in answers.indices]
    queried_ms = [dumps(round(asked_s * 1e3)) for asked_s in queried_s]
    latencies_ms = [dumps(max(0, round((at_s - asked_s) * 1e6)) / 1e3) for asked_s in queried_s]
    at_ms = repeat(dumps(round(at_s * 1e3)))
    return list(map(mod, forms, zip(ids, outputs, *others, offsets, queried_ms, at_ms, latencies_ms, strict=False)))


_DUMPS: Mapping[str, Dumps] = {
    codec.JSON: msgspec.json.Encoder().encode,
    codec.MSGPACK: msgspec.msgpack.Encoder().encode,
}
_HOLE: Any = msgspec.Raw(b"\0hole\0")
"""Stands in a field that each record of a block fills in its own way."""


@lru_cache(maxsize=1024)
def _model_form(
    application: str, policy: tuple[str, int], decision: Decision, kind: str, cached: tuple[bool, ...]
) -> bytes:
    """Return a prediction with holes for id, output, confidence, each model's output and latency, and what follows."""
    form = _form(application)
    form.confidence, form.policy = _HOLE, policy_ref(*policy)
    form.models = [
        ModelAnswer(model=name, version=version, propensity=chance, output=_HOLE, latency_ms=_HOLE, cached=one)
        for (name, version), chance, one in zip(
            map(name_and_version, decision.models), decision.propensities, cached, strict=True
        )
    ]
    form.served_propensity = decision.served_propensity
    return _with_holes(form, kind)


@lru_cache(maxsize=1024)
def _late_form(application: str, policy: tuple[str, int], decision: Decision, kind: str) -> bytes:
    """Return a prediction of which no model's output came, with holes as in a refused one."""
    form = _default_form(application, LATE.reason)
    form.policy, form.served_propensity = policy_ref(*policy), decision.served_propensity
    asked = zip(decision.models, decision.propensities, strict=True)
    form.missing = [_missing(MissingModel(ref, chance, served=True, failure=LATE)) for ref, chance in asked]
    return _with_holes(form, kind)


@lru_cache(maxsize=1024)
def _refused_form(application: str, reason: str, kind: str) -> bytes:
    """Return a prediction with holes for id, output, explanation, and what follows."""
    return _with_holes(_default_form(application, reason), kind)


def _default_form(application: str, reason: str) -> Prediction:
    form = _form(application)
    form.confidence, form.default, form.reason, form.explanation = 0.0, True, reason, _HOLE
    return form


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
        latency_ms=max(0, round((at_s - queried_at_s) * 1e6))
        / 1e3,  # to microseconds; round(x, 3) takes four times as long
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
