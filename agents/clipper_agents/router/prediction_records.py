"""Encodes answers as records of the predictions and audits topics.

Rules of this file:
- `prediction_of` says what a prediction is. The usual ones of a batch differ in few fields, so one of a kind is encoded
  with holes there, which are filled for each: the bytes are the same.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from operator import mod
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET

from clipper_stream.query import Answers, Failure, QueryBatch
from clipper_stream.query.batch import LATE, PLAIN
from clipper_stream.selection.distribution import Decision
from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.catalogue import LARGEST_RECORD_BYTES
from clipper_topics.prediction import NAMED, Missing, MissingRow, ModelAnswer, PolicyRef, Prediction

MOST_BYTES = LARGEST_RECORD_BYTES - 2 * 1024 * 1024
"""Largest prediction: key and echoed headers, which are the query's, need room as well."""
LEAST_S = 0.001
"""An earlier time is left out of a record, as the default of its field."""
FORMS_FROM = 4
"""So many answers at least are written into forms; for fewer that is dearer than a record each."""
_UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""What msgspec raises for a value that JSON or msgpack cannot hold, such as an integer of more than 64 bits."""
_NO_FEATURES: list[float] = []
_NO_FAILURES: dict[int, Failure] = {}
Dumps: TypeAlias = Callable[[Any], bytes]


def encode_answers(answers: Answers) -> tuple[Answers, list[bytes]]:
    """Return the answers and their predictions as bytes, in the content type of their queries.

    An answer that no record can hold becomes a default without outputs, because its query has to end somehow.
    """
    batch, count = answers.batch, len(answers.entries)
    values: list[bytes] = [b""] * count
    unusual = any((batch.options, batch.audit, batch.features, batch.confidences))
    if count >= FORMS_FROM and not unusual and min(batch.queried_at_s) >= LEAST_S:
        _fill_forms(answers, values)
    unwritable: dict[int, Failure] = {}
    for place, value in enumerate(values):
        if not 0 < len(value) <= MOST_BYTES:
            values[place], failure = _encoded(answers, place)
            if failure is not None:
                unwritable[answers.entries[place]] = failure
    return answers._replace(failures={**answers.failures, **unwritable}) if unwritable else answers, values


def _encoded(answers: Answers, place: int) -> tuple[bytes, Failure | None]:
    """Return a prediction by itself, and why it is a default where no record can hold the answer."""
    kind, prediction = answers.batch.content_type, prediction_of(answers, place)
    try:
        encoded = codec.predictions.encode(prediction, kind)
        if len(encoded) <= MOST_BYTES:
            return encoded, None
        size = f"the answer takes {len(encoded)} bytes, a record has at most {MOST_BYTES}"
        failure = Failure("errors", f"{size}: ask for fewer rows at once")
    except _UNWRITABLE as error:
        failure = Failure("errors", f"the answer cannot be written as {kind}: {error}")
    return _default(answers, prediction, failure), failure


def _default(answers: Answers, prediction: Prediction, failure: Failure) -> bytes:
    batch, packed = answers.batch, prediction.outputs is not UNSET
    default: Any = batch.manifest.default_output if batch.is_registered else None
    prediction.confidence, prediction.models, prediction.missing, prediction.features = 0.0, [], [], []
    prediction.policy = prediction.served_propensity = None
    prediction.default, (prediction.reason, prediction.explanation) = True, failure
    prediction.output, prediction.outputs = (UNSET, []) if packed else (default, UNSET)
    with contextlib.suppress(*_UNWRITABLE):
        encoded = codec.predictions.encode(prediction, batch.content_type)
        if len(encoded) <= MOST_BYTES:
            return encoded
    prediction.output = UNSET if packed else None
    return codec.predictions.encode(prediction, batch.content_type)


def prediction_of(answers: Answers, place: int) -> Prediction:
    """Return the prediction about the query at a place of the answers; fields with their default value are left out."""
    batch, entries, at_s, outputs, confidences, failures = answers
    entry, output = entries[place], outputs[place]
    queried_at_s = batch.queried_at_s[entry]
    packed, context, named, *_ = batch.options.get(entry, PLAIN) if batch.options else PLAIN
    decision = batch.decision_of(entry)
    models, missing = _models_of(batch, entry, decision, packed=packed) if decision else ([], [])
    prediction = Prediction(
        query_id=batch.ids[entry],
        application=batch.application,
        output=UNSET if packed else output,
        confidence=confidences[place],
        models=models,
        query_offset=batch.offsets[entry],
        queried_at_ms=round(queried_at_s * 1e3),
        predicted_at_ms=round(at_s * 1e3),
        latency_ms=max(0, round((at_s - queried_at_s) * 1e6)) / 1e3,
    )
    if decision is not None:
        prediction.served_propensity = decision.served_propensity
        prediction.features = batch.features.get(entry) or _NO_FEATURES
        name = batch.manifest.policy.name if named is None else NAMED
        prediction.policy, prediction.missing = _policy_ref(name, batch.manifest.revision), missing
    if packed:
        prediction.outputs = output
    if entry in batch.audit:
        prediction.audited = True
    if context is not None:
        prediction.context = context
    if entry in failures:
        prediction.default, (prediction.reason, prediction.explanation) = True, failures[entry]
    return prediction


def _models_of(
    batch: QueryBatch, entry: int, decision: Decision, *, packed: bool, unwritable: str = ""
) -> tuple[list[ModelAnswer], list[Missing]]:
    models, missing = list[ModelAnswer](), list[Missing]()
    asked_s, failed, failures = batch.asked_at_s, entry in batch.failed, _NO_FAILURES
    for ref, chance, slots in zip(decision.models, decision.propensities, batch.slots_of(entry), strict=True):
        outputs, arrived_s, served = batch.outputs[slots], max(batch.arrived_s[slots]), ref in decision.served
        if failed:
            failures = {row: output for row, output in enumerate(outputs) if output.__class__ is Failure}
            outputs = [None if row in failures else output for row, output in enumerate(outputs)]
        is_missing = len(failures) == len(outputs)
        if unwritable or is_missing:
            failure = failures[0] if is_missing else Failure("error", unwritable)
            missing.append(_missing(ref, chance, failure, served=served))
            continue
        name, version = _name_and_version(ref)
        answer = ModelAnswer(
            model=name,
            version=version,
            propensity=chance,
            output=UNSET if packed else outputs[0],
            latency_ms=_milliseconds(arrived_s - asked_s if arrived_s else 0.0),
            confidence=batch.confidence_of(slots) if batch.confidences else None,
            cached=not arrived_s,
            served=served,
        )
        if packed:
            answer.outputs = outputs
            answer.missing_rows = [
                MissingRow(row=row, reason=reason, explanation=why) for row, (reason, why) in failures.items()
            ]
        models.append(answer)
    return models, missing


def _missing(ref: str, chance: float, failure: Failure, *, served: bool = True) -> Missing:
    (name, version), (reason, why) = _name_and_version(ref), failure
    return Missing(model=name, version=version, propensity=chance, reason=reason, explanation=why, served=served)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e6) / 1e3  # to microseconds; round(x, 3) takes four times as long


@lru_cache(maxsize=1024)
def _policy_ref(name: str, version: int) -> PolicyRef:
    return PolicyRef(name=name, version=version)


@lru_cache(maxsize=4096)
def _name_and_version(ref: str) -> tuple[str, str]:
    name, _, version = ref.partition(":")
    return name, version


# --- many at a time ---------------------------------------------------------------------------------------------------
_DUMPS: Mapping[str, Dumps] = {
    codec.JSON: msgspec.json.Encoder().encode,
    codec.MSGPACK: msgspec.msgpack.Encoder().encode,
}
_HOLE: Any = msgspec.Raw(b"\0hole\0")
"""Stands in a field that each record of a form fills in its own way."""


def _fill_forms(answers: Answers, values: list[bytes]) -> None:
    """Put the predictions of which forms can be made into their places; where one of a kind is unwritable, none."""
    for encode, places in _alike(answers):
        with contextlib.suppress(*_UNWRITABLE):
            for place, value in zip(places, encode(_at(answers, places)), strict=True):
                values[place] = value


def _alike(answers: Answers) -> list[tuple[Callable[[Answers], Iterable[bytes]], Sequence[int]]]:
    """Return the places of answers that forms are for: nobody was asked, all models answered, or none did."""
    batch, entries, _, _, _, failures = answers
    places = range(len(entries))
    if not batch.asked_at_s:
        return [(_refused, places)]
    if batch.single and not failures and batch.failed.isdisjoint(entries):
        return [(_answered, places)]
    refused, silent, answered = list[int](), list[int](), dict[int, list[int]]()
    for place, entry in enumerate(entries):
        outputs = batch.outputs[batch.slot_start[entry] : batch.slot_start[entry + 1]]
        if batch.decisions[entry] is None:
            refused.append(place)
        elif entry not in failures and entry not in batch.failed:
            answered.setdefault(len(outputs), []).append(place)
        elif outputs.count(LATE) == len(outputs):
            silent.append(place)
    kinds = [(_refused, refused), (_silent, silent), *((_answered, some) for some in answered.values())]
    return [(encode, some) for encode, some in kinds if some]


def _at(answers: Answers, places: Sequence[int]) -> Answers:
    batch, entries, at_s, outputs, confidences, failures = answers
    if len(places) == len(entries):
        return answers
    own = [outputs[place] for place in places], [confidences[place] for place in places]
    return Answers(batch, [entries[place] for place in places], at_s, *own, failures)


def _answered(answers: Answers) -> Iterable[bytes]:
    """Encode the answers to queries of one row that asked equally many models, all of which answered."""
    batch, entries, _, outputs, confidences, _ = answers
    dumps, asked_s = _DUMPS[batch.content_type], batch.asked_at_s
    firsts = [batch.slot_start[entry] for entry in entries]
    width = batch.slot_start[entries[0] + 1] - firsts[0]
    models, cached = list[list[bytes]](), list[list[bool]]()
    for model in range(width):
        arrived_s = [batch.arrived_s[first + model] for first in firsts]
        latency_of = {at_s: dumps(_milliseconds(at_s - asked_s if at_s else 0.0)) for at_s in {*arrived_s}}
        models.append([dumps(batch.outputs[first + model]) for first in firsts])
        models.append([latency_of[at_s] for at_s in arrived_s])
        cached.append([not at_s for at_s in arrived_s])
    decisions = [batch.decisions[entry] for entry in entries]
    forms = _forms(answers, decisions, zip(*cached, strict=True))
    if width == 1:
        return _filled(answers, forms, models[0], repeat(dumps(1.0)), *models)
    written = {id(output): dumps(output) for output in outputs}
    sure = {confidence: dumps(confidence) for confidence in {*confidences}}
    said = [written[id(output)] for output in outputs], [sure[confidence] for confidence in confidences]
    return _filled(answers, forms, *said, *models)


def _silent(answers: Answers) -> Iterable[bytes]:
    decisions = [answers.batch.decisions[entry] for entry in answers.entries]
    return _defaulted(answers, _forms(answers, decisions, repeat((), len(decisions)), LATE.reason))


def _refused(answers: Answers) -> Iterable[bytes]:
    reasons = [answers.failures[entry].reason for entry in answers.entries]
    name, kind = answers.batch.application, answers.batch.content_type
    forms = {reason: _form(name, None, None, (), reason, kind) for reason in {*reasons}}
    return _defaulted(answers, [forms[reason] for reason in reasons])


def _defaulted(answers: Answers, forms: Iterable[bytes]) -> Iterable[bytes]:
    dumps = _DUMPS[answers.batch.content_type]
    why = [dumps(answers.failures[entry].explanation) for entry in answers.entries]
    return _filled(answers, forms, repeat(dumps(answers.outputs[0])), why)


def _forms(
    answers: Answers,
    decisions: list[Decision | None],
    cached: Iterable[tuple[bool, ...]],
    reason: str | None = None,
) -> list[bytes]:
    batch, made, forms = answers.batch, dict[Any, bytes](), list[bytes]()
    policy = batch.manifest.policy.name, batch.manifest.revision
    for decision, each in zip(decisions, cached, strict=True):
        form = made.get((id(decision), each))
        if form is None:
            form = _form(batch.application, policy, decision, each, reason, batch.content_type)
            made[id(decision), each] = form
        forms.append(form)
    return forms


def _filled(
    answers: Answers, forms: Iterable[bytes], outputs: Iterable[bytes], *others: Iterable[bytes]
) -> Iterable[bytes]:
    """Fill the holes of each form: its id, output, what is given besides, its offset and its times."""
    batch, entries, at_s, _, _, _ = answers
    dumps = _DUMPS[batch.content_type]
    ids = [dumps(batch.ids[entry]) for entry in entries]
    offsets = [dumps(batch.offsets[entry]) for entry in entries]
    asked_s = [batch.queried_at_s[entry] for entry in entries]
    asked_ms = [dumps(round(queried_s * 1e3)) for queried_s in asked_s]
    latencies_ms = [dumps(max(0, round((at_s - queried_s) * 1e6)) / 1e3) for queried_s in asked_s]
    times = offsets, asked_ms, repeat(dumps(round(at_s * 1e3))), latencies_ms
    return map(mod, forms, zip(ids, outputs, *others, *times, strict=False))


@lru_cache(maxsize=1024)
def _form(
    application: str,
    policy: tuple[str, int] | None,
    decision: Decision | None,
    cached: tuple[bool, ...],
    reason: str | None,
    kind: str,
) -> bytes:
    """Return a prediction with holes: id, output, confidence or explanation, what each model said, and times."""
    form = Prediction(
        query_id=_HOLE,
        application=application,
        output=_HOLE,
        confidence=_HOLE if reason is None else 0.0,
        query_offset=_HOLE,
        queried_at_ms=_HOLE,
        predicted_at_ms=_HOLE,
        latency_ms=_HOLE,
    )
    if decision is not None and policy is not None:
        form.served_propensity, form.policy = decision.served_propensity, _policy_ref(*policy)
        asked = [*zip(decision.models, decision.propensities, strict=True)]
        form.models = [
            ModelAnswer(
                model=name, version=version, propensity=chance, output=_HOLE, latency_ms=_HOLE, cached=is_cached
            )
            for (ref, chance), is_cached in zip(asked, cached, strict=False)
            for name, version in (_name_and_version(ref),)
        ]
        if reason is not None:
            form.missing = [_missing(ref, chance, LATE) for ref, chance in asked]
    if reason is not None:
        form.default, form.reason, form.explanation = True, reason, _HOLE
    return codec.predictions.encode(form, kind).replace(b"%", b"%%").replace(bytes(_HOLE), b"%b")


# --- audits -----------------------------------------------------------------------------------------------------------
def encode_audits(audits: Answers) -> list[bytes]:
    """Encode audits in the content type of their queries, without outputs where no record can hold them."""
    return [_encoded_audit(audits, entry) for entry in audits.entries]


def _encoded_audit(audits: Answers, entry: int) -> bytes:
    kind = audits.batch.content_type
    try:
        encoded = codec.audits.encode(_audit_of(audits, entry), kind)
        if len(encoded) <= MOST_BYTES:
            return encoded
        why = f"the audit takes {len(encoded)} bytes, a record has at most {MOST_BYTES}: ask for fewer rows at once"
    except _UNWRITABLE as error:
        why = f"the audit cannot be written as {kind}: {error}"
    return codec.audits.encode(_audit_of(audits, entry, why), kind)


def _audit_of(audits: Answers, entry: int, unwritable: str = "") -> Audit:
    batch, query = audits.batch, audits.batch.query_of(entry)
    options, decision = batch.options.get(query, PLAIN), batch.decisions[entry]
    assert decision is not None
    models, missing = _models_of(batch, entry, decision, packed=options.packed, unwritable=unwritable)
    return Audit(
        query_id=batch.ids[query],
        application=batch.application,
        context=options.context,
        models=models,
        missing=missing,
        query_offset=batch.offsets[query],
        audited_at_ms=round(audits.decided_at_s * 1e3),
    )
