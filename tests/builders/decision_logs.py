"""Logs of decisions in memory, a join that does them one by one, and columns as plain rows to compare."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from builders.kafka import record
from clipper_agents.replay.partition_join import JoinRules, PartitionJoin
from clipper_stream.errors import InvalidLabel
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.feedback.join import disagreement, feedback_value, join
from clipper_stream.feedback.update import answer_loss, score
from clipper_stream.feedback.values import Label
from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.codec import UndecodableRecord
from clipper_topics.feedback import Feedback, check_feedback
from clipper_topics.prediction import Missing, ModelAnswer, PolicyRef, Prediction
from clipper_topics.restore import RESTORE

APP = "app"
TOPICS = ("predictions", "audits", "feedback")


def answer(ref, output, propensity=1.0, **changes):
    name, _, version = ref.partition(":")
    return ModelAnswer(model=name, version=version, propensity=propensity, output=output, **changes)


def missing(ref, propensity=1.0, **changes):
    name, _, version = ref.partition(":")
    return Missing(model=name, version=version, propensity=propensity, reason="late", **changes)


def decided(query_id, *models, application=APP, **changes):
    """A prediction of one model or an ensemble, whose first output is the answer."""
    answers = [one for one in models if isinstance(one, ModelAnswer)]
    served = [one for one in models if one.served]
    settings = dict(
        output=answers[0].output if answers else None,
        policy=PolicyRef(name="epsilon_greedy", version=2),
        served_propensity=served[0].propensity if len(served) == 1 else 1.0,
        models=answers,
        missing=[one for one in models if isinstance(one, Missing)],
        query_offset=0,
        predicted_at_ms=5,
    )
    return Prediction(query_id=query_id, application=application, **(settings | changes))


class Log:
    """The three topics of one partition; each record is a second behind the one before, unless `at_ms` says."""

    def __init__(self, partition=0):
        self.partition, self.records = partition, {topic: [] for topic in TOPICS}
        self._at_ms = 0

    def add(self, content, *, at_ms=None, kind=codec.JSON, headers=()):
        """A record of a prediction, an audit or a feedback."""
        kinds: dict[type, tuple[str, Any]] = {
            Prediction: ("predictions", codec.predictions),
            Audit: ("audits", codec.audits),
            Feedback: ("feedback", codec.feedback),
        }
        topic, own = kinds[type(content)]
        return self.add_bytes(
            topic, own.encode(content, kind), at_ms=at_ms, headers=(*codec.headers_of(kind), *headers)
        )

    def add_bytes(self, topic, value, *, at_ms=None, headers=()):
        """A record of any bytes."""
        self._at_ms = self._at_ms + 1_000 if at_ms is None else at_ms
        records = self.records[topic]
        records.append(record(len(records), value, b"", topic, self.partition, headers, self._at_ms))
        return self

    def in_order(self):
        """All records by their time."""
        return sorted((one for records in self.records.values() for one in records), key=lambda one: one.timestamp)


def joined(log, *, first_offset=0, lists_of=3, **rules):
    """The columns of a log in one piece, and the counts; records go in by their time, some at once."""
    settings = JoinRules(**(dict(application=APP, loss_kind="zero_one", partitions=4) | rules))
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        join = PartitionJoin(log.partition, settings, first_offset, Path(folder))
        waiting = []
        for one in [*log.in_order(), None]:
            if waiting and (one is None or one.topic != waiting[0].topic or len(waiting) >= lists_of):
                getattr(join, waiting[0].topic)(waiting)
                parts += join.finished(waiting[-1].timestamp)
                waiting = []
            waiting.append(one)
        parts += join.end()
        join.close()
    return DecisionColumns.concatenated(parts), +join.counts


def plain(columns):
    """Columns as one dictionary a decision, words instead of their numbers, and only what is known."""
    rows = []
    for at in range(len(columns)):
        row = {
            name: getattr(columns, name)[at].item()
            for name in ("partition", "offset", "query_offset", "at_ms", "revision", "confidence", "default")
        }
        row["context"] = columns.contexts[columns.context[at]]
        row["policy"] = columns.policies[columns.policy[at]] if columns.policy[at] >= 0 else None
        for name in ("answer", "label"):
            code = getattr(columns, name)[at]
            row[name] = None if code < 0 else columns.values[code]
        for name in ("served_propensity", "answer_loss"):
            value = getattr(columns, name)[at].item()
            row[name] = None if np.isnan(value) else value
        row["feedback"] = (columns.feedback_offset[at].item(), columns.feedback_at_ms[at].item())
        row["features"] = [one for one in columns.features[at].tolist() if not np.isnan(one)]
        row["models"] = {
            model: _of_model(columns, at, number)
            for number, model in enumerate(columns.models)
            if columns.propensity[at, number] > 0
        }
        rows.append(row)
    return rows


def _of_model(columns, at, number):
    loss, latency = columns.loss[at, number].item(), columns.latency_ms[at, number].item()
    code = columns.output[at, number]
    return dict(
        propensity=columns.propensity[at, number].item(),
        served=columns.served[at, number].item(),
        answered=columns.answered[at, number].item(),
        latency_ms=None if np.isnan(latency) else latency,
        output=None if code < 0 else columns.values[code],
        loss=None if np.isnan(loss) else loss,
    )


def naive(log, *, loss_kind="zero_one", horizon_ms=float("inf"), first_offset=0):
    """What `joined` should give, from whole records and by the learner's own functions, decision by decision."""
    decisions = {}
    for one in log.records["predictions"]:
        found = _decoded(codec.predictions, one)
        if found is not None:
            first = decisions.setdefault(found.query_id, {})
            first.setdefault(found.application, (one, found))
    wanted = [under[APP] for under in decisions.values() if APP in under]
    return [
        _row(log, one, found, loss_kind, horizon_ms, is_first=next(iter(decisions[found.query_id])) == APP)
        for one, found in sorted(wanted, key=lambda pair: pair[0].offset)
        if one.offset >= first_offset
    ]


def _decoded(own, one):
    try:
        return own.decode(one.value, one.headers)
    except UndecodableRecord:
        return None


def _row(log, one, found, loss_kind, horizon_ms, is_first):
    audit = None
    for other in log.records["audits"]:
        said = _decoded(codec.audits, other)
        key = (found.query_id, found.query_offset)
        in_time = other.timestamp <= one.timestamp + horizon_ms
        if found.audited and in_time and said is not None and (said.query_id, said.query_offset) == key:
            audit = audit or said
    decision = join(found, audit)
    used, losses, loss_of_answer = _used(log, one, found, decision, loss_kind, horizon_ms, is_first)
    by_ref = {
        f"{one.model}:{one.version}": one
        for each in (audit, found)
        for one in ([] if each is None else [*each.models, *each.missing])
    }
    asked = {ref: _of_record(by_ref[ref], decision, ref, losses) for ref in decision.propensities}
    truth = None if used is None else feedback_value(used[1])
    return dict(
        partition=log.partition,
        offset=one.offset,
        query_offset=found.query_offset,
        at_ms=found.predicted_at_ms,
        revision=found.policy.version if found.policy else -1,
        confidence=found.confidence,
        default=found.default,
        context=found.context,
        policy=found.policy.name if found.policy else None,
        answer=_text(decision.answer),
        label=_text(truth.value) if isinstance(truth, Label) else None,
        served_propensity=decision.probability if decision.served else decision.served_propensity,
        answer_loss=loss_of_answer,
        feedback=(-1, -1) if used is None else (used[0].offset, used[0].timestamp),
        features=list(found.features),
        models=asked,
    )


def _of_record(one, decision, ref, losses):
    came = ref in decision.outputs
    return dict(
        propensity=decision.propensities[ref],
        served=ref in decision.served,
        answered=came,
        latency_ms=one.latency_ms if came else None,
        output=_text(decision.outputs[ref]) if came else None,
        loss=losses.get(ref),
    )


def _used(log, one, found, decision, loss_kind, horizon_ms, is_first):
    for other in log.records["feedback"]:
        if any(name == RESTORE for name, _ in other.headers):
            continue
        said = _decoded(codec.feedback, other)
        if said is None or check_feedback(said) is not None or said.query_id != found.query_id:
            continue
        if said.application != APP and not (said.application is None and is_first):
            continue
        if other.timestamp > one.timestamp + horizon_ms:
            continue
        if disagreement(said, found) is not None:
            continue
        try:
            losses = score(decision, feedback_value(said), loss_kind).losses
        except InvalidLabel:
            continue
        return (other, said), losses, answer_loss(decision, feedback_value(said), loss_kind)
    return None, {}, None


def _text(value):
    return msgspec.json.encode(None if value is msgspec.UNSET else value).decode()


def counts(**expected):
    """Counts that are not 0."""
    return Counter(expected)
