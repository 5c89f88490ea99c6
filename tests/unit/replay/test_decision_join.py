from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
import msgspec
import pyarrow.parquet as pq
import pytest
from builders.decision_logs import answer, audit_of, decided, missing
from hypothesis import HealthCheck, given, settings
from msgspec import UNSET
from unit.replay.deployment import CATALOGUE, MemoryLogs, joined

from clipper_agents.replay.decision_join import DecisionJoin
from clipper_agents.replay.log_tables import LogTables
from clipper_stream.errors import InvalidLabel
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.feedback.join import disagreement, feedback_value, join
from clipper_stream.feedback.update import Label, answer_loss, score
from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.codec import UndecodableRecord
from clipper_topics.feedback import FORWARDED, Feedback, check_feedback
from clipper_topics.prediction import Prediction
from clipper_topics.restore import RESTORE

TOPICS = {Prediction: CATALOGUE.predictions, Audit: CATALOGUE.audits, Feedback: CATALOGUE.feedback}
CODECS: dict[type, Any] = {Prediction: codec.predictions, Audit: codec.audits, Feedback: codec.feedback}
A = answer("a:1", 1)


class Log(MemoryLogs):
    """The three topics of one partition; each record is a second behind the one before, unless `at_ms` says."""

    def __init__(self, *contents, partition=0):
        super().__init__(now_ms=1_000, step_ms=1_000)
        self.partition = partition
        for one in contents:
            self.add(one)

    def add(self, content, *, at_ms=None, kind=codec.JSON, headers=()):
        """A record of a prediction, an audit or a feedback, or the bytes of one."""
        of, value = content if isinstance(content, tuple) else (type(content), None)
        encoded = value if isinstance(content, tuple) else CODECS[of].encode(content, kind)
        self.now_ms = self.now_ms if at_ms is None else at_ms
        return self.append(TOPICS[of], encoded, self.partition, headers=(*codec.headers_of(kind), *headers))

    def contents(self, kind):
        for one in self.topics[TOPICS[kind], self.partition]:
            with suppress(UndecodableRecord):
                yield one, CODECS[kind].decode(one.value, one.headers)


def told(query_id="q", **changes):
    return Feedback(query_id=query_id, **({} if {"loss", "reward"} & changes.keys() else {"label": 1}) | changes)


def audit(*models, query_id="q", query_offset=0):
    return audit_of(query_id, *models, query_offset=query_offset)


def beside(output):
    return answer("b:1", output, 0.1, served=False)


# --- a naive join, from whole records and by the learner's own functions, decision by decision ------------------------
def naive(log, models, loss_kind="zero_one", horizon_ms=float("inf"), first_offset=0, **_):
    decisions = {}
    for one, found in log.contents(Prediction):
        decisions.setdefault(found.query_id, {}).setdefault(found.application, (one, found))
    wanted = [(*under["app"], next(iter(under)) == "app") for under in decisions.values() if "app" in under]
    return [
        naive_row(log, one, found, is_first, models, loss_kind, one.timestamp + horizon_ms)
        for one, found, is_first in sorted(wanted, key=lambda each: each[0].offset)
        if one.offset >= first_offset
    ]


def naive_row(log, one, found, is_first, models, loss_kind, until_ms):
    about = (found.query_id, found.query_offset)
    audits = [
        said
        for other, said in log.contents(Audit)
        if found.audited and (said.query_id, said.query_offset) == about and other.timestamp <= until_ms
    ]
    decision = join(found, audits[0] if audits else None)
    used = naive_feedback(log, found, decision, is_first, loss_kind, until_ms)
    record, value, losses = used or (None, None, {})
    by_ref = {f"{each.model}:{each.version}": each for said in (*audits[:1], found) for each in said.models}
    outputs = decision.outputs
    return dict(
        models=models, partition=log.partition, offset=one.offset, query_offset=found.query_offset,
        at_ms=found.predicted_at_ms, confidence=found.confidence, default=found.default, context=found.context,
        features=list(found.features), answer=text(decision.answer), several_rows=decision.several_rows,
        policy=found.policy and found.policy.name, revision=found.policy.version if found.policy else -1,
        label=text(value.value) if isinstance(value, Label) else None,
        served_propensity=decision.probability if decision.served else decision.served_propensity,
        answer_loss=None if used is None else answer_loss(decision, value, loss_kind),
        feedback_offset=-1 if used is None else record.offset,
        feedback_at_ms=-1 if used is None else record.timestamp,
        propensity=[decision.propensities.get(ref, 0.0) for ref in models],
        served=[ref in decision.served for ref in models],
        answered=[ref in outputs for ref in models],
        latency_ms=[by_ref[ref].latency_ms if ref in outputs else None for ref in models],
        output=[text(outputs[ref]) if ref in outputs else None for ref in models],
        loss=[losses.get(ref) for ref in models],
    )  # fmt: skip


def naive_feedback(log, found, decision, is_first, loss_kind, until_ms):
    """The first feedback that can be used: its record, what it says, and the losses."""
    for other, said in log.contents(Feedback):
        about = said.query_id == found.query_id and (said.application or ("app" if is_first else "")) == "app"
        marker = any(name == RESTORE for name, _ in other.headers)
        if marker or not about or check_feedback(said) or disagreement(said, found) or other.timestamp > until_ms:
            continue
        with suppress(InvalidLabel):
            return other, feedback_value(said), score(decision, feedback_value(said), loss_kind).losses
    return None


def text(value):
    return msgspec.json.encode(None if value is UNSET else value).decode()


WORDS = dict(context="contexts", policy="policies", answer="values", label="values", output="values")


def plain(columns):
    """Columns as one dictionary a decision, words instead of their numbers, None for what is not known."""

    def known(value, words):
        if isinstance(value, list):
            return [known(one, words) for one in value]
        if words is not None:
            return words[value] if value >= 0 else None
        return None if value != value else value  # noqa: PLR0124 - not a number

    names = DecisionColumns.__dataclass_fields__.keys() - {"models", "configs", *WORDS.values()}
    rows = [
        {
            name: known(getattr(columns, name)[at].tolist(), getattr(columns, WORDS.get(name, ""), None))
            for name in names
        }
        for at in range(len(columns))
    ]
    return [
        row | dict(models=columns.models, features=[one for one in row["features"] if one is not None]) for row in rows
    ]


def rows_of(log, **rules):
    """The decisions of a log, which are those of the naive join, and the counts."""
    columns, counts = joined(log, log.partition, **rules)
    rows = plain(columns)
    assert rows == naive(log, columns.models, **rules)
    return rows, counts


# --- rules ------------------------------------------------------------------------------------------------------------
def test_a_decision_has_what_the_prediction_says_and_the_losses_of_the_learner():
    asked = decided("q", answer("a:1", 1, 0.25, latency_ms=2.5), context="u", confidence=0.5)
    assert rows_of(Log(asked, told(label=2), partition=3))[0] == [
        dict(
            partition=3, offset=0, query_offset=0, at_ms=5, revision=2, confidence=0.5, default=False, context="u",
            policy="epsilon_greedy", answer="1", label="2", served_propensity=0.25, answer_loss=1.0, features=[],
            feedback_offset=0, feedback_at_ms=2_000, several_rows=False, models=("a:1",), propensity=[0.25],
            served=[True], answered=[True], latency_ms=[2.5], output=["1"], loss=[1.0],
        )
    ]  # fmt: skip


Q = decided("q", A)
SILENT = decided("q", A, audited=True)
UNREADABLE = [(kind, value) for kind in TOPICS for value in (b"{", None, b"", b"\xff", b'{"query_id": 3}', b"[]")]
MARKER = {"headers": [(RESTORE, b"r-1")]}
SENT_ON = {"headers": [(FORWARDED, b"1")]}
# Who told what in which partition; the feedback of each decision, and the counts. What a learner learns as well stands
# in `test_log_stories.py`.
STORIES = {
    "a decision without feedback": (Log(Q), [-1], {}),
    "the first prediction is the decision": (Log(Q, decided("q", answer("b:1", 2)), told()), [0], {"repeated": 1}),
    "an output that is left out": (Log(decided("q", answer("a:1", UNSET)), told(label=None)), [-1], {"invalid": 1}),
    "repetitions in between": (Log(Q, decided("p", A), Q, decided("r", A)), [-1] * 3, {"repeated": 1}),
    "a marker is no feedback": (Log(Q).add(told(label=2), **MARKER).add(told()), [1], {"markers": 1}),
    "no audit": (Log(SILENT, told()), [0], {"no_audit": 1}),
    "before the prediction": (Log(told(), audit(beside(1)), SILENT), [0], {}),
    "of others": (
        Log(decided("q", A, application="other"), told(), told("p", application="other")), [], {"not_wanted": 2}),
    "read in the partition that the id names": (
        Log(told("2@1"), told("9@1"), told("2-1"), partition=1).add(told("2@2"), **SENT_ON), [],
        {"forwarded": 1, "orphans": 3}),
    "forwarded to here": (Log(decided("2-1", A), partition=2).add(told("2-1"), **SENT_ON), [0], {}),
    "an id that names another partition, decided here": (Log(decided("2-1", A), told("2-1"), partition=1), [0], {}),
    "msgpack": (Log().add(Q, kind=codec.MSGPACK).add(told(), kind=codec.MSGPACK).add(decided("p", A)), [0, -1], {}),
    "nothing that can be read": (Log(*UNREADABLE, Q, *UNREADABLE, told()), [12], {"undecodable": 36}),
    "no query": (Log(Q, (Feedback, b'{"query_id": "", "label": 1}'), told()), [1], {"undecodable": 1}),
    "no truth": (Log(Q, (Feedback, b'{"query_id": "q"}'), told()), [1], {"undecodable": 1}),
    "two truths": (Log(Q, told(label=1, loss=0.5), told(loss=0.5, reward=0.5), told()), [2], {"undecodable": 2}),
}  # fmt: skip


@pytest.mark.parametrize("lists_of", [1, 3, 40])
@pytest.mark.parametrize(("log", "feedback", "counts"), STORIES.values(), ids=STORIES)
def test_a_story_is_joined_and_counted(log, feedback, counts, lists_of):
    rows, found = rows_of(log, lists_of=lists_of)
    assert [row["feedback_offset"] for row in rows] == feedback
    known = sum(offset >= 0 for offset in feedback)
    assert (found.pop("decisions", 0), found.pop("with_feedback", 0)) == (len(rows), known)
    assert {name: number for name, number in found.items() if name != "feedback"} == counts


def test_a_horizon_and_a_span_leave_out_what_is_beyond_them():
    log = Log().add(decided("p", A), at_ms=1_000).add(Q, at_ms=2_000)
    log.add(told(), at_ms=11_000).add(told("p"), at_ms=11_001)
    rows, counts = rows_of(log, horizon_ms=10_000)
    assert ([row["feedback_offset"] for row in rows], counts["late"]) == ([-1, 0], 1)
    rows, counts = rows_of(Log(Q, Q, told(), audit(beside(1)), decided("p", A)), first_offset=1)
    assert ([row["offset"] for row in rows], counts["repeated"], counts["not_wanted"]) == ([2], 1, 1)


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("first", ["app", "other"])
def test_an_id_of_two_applications_is_two_decisions(first, early):
    second = "other" if first == "app" else "app"
    asked = [decided("q", answer(f"{name}:1", 1), application=name) for name in (first, second)] * 2
    said = [told(application=name) for name in (None, "other", "app", "third")]
    of_others = 2 if first == "app" else 3
    rows, counts = rows_of(Log(*said, *asked) if early else Log(*asked, *said), lists_of=1 if early else 3)
    assert [row["feedback_offset"] for row in rows] == [0 if first == "app" else 2]
    assert (counts["not_wanted"], counts["duplicates"], counts["repeated"]) == (of_others, 3 - of_others, 1)


def test_decisions_are_in_the_order_of_time_then_of_partitions_and_offsets(tmp_path):
    times = {1: [5, 2, 9], 0: [4, 5]}
    with LogTables(tmp_path, "0", CATALOGUE, "app", {0: 0, 1: 0}) as tables:
        for partition, mine in times.items():
            log = Log(*(decided(f"{at}", A, predicted_at_ms=at) for at in mine), partition=partition)
            tables.take(log.topics[CATALOGUE.predictions, partition])
    with DecisionJoin(tmp_path, application="app", loss_kind="zero_one") as join:
        join.write(tmp_path / "x.parquet", {}, 2_048)
    rows = pq.read_table(tmp_path / "x.parquet", columns=["at_ms", "partition", "offset"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [(2, 1, 1), (4, 0, 0), (5, 0, 1), (5, 1, 0), (9, 1, 2)]


# --- any log ----------------------------------------------------------------------------------------------------------
PACKED = "é"
"""A query of several rows."""
IDS = st.sampled_from(["0-0", "9-1", "order 7", PACKED])
VALUES = st.sampled_from([0, 1, 1.0, True, "1", "x", 0.5, None, [1, 2], [1, 2.0], [], {"a": 1}, 2**70, float("inf")])
UNITS = st.sampled_from([0.0, 0.25, 0.3, 1.0])
TRUTHS = st.one_of(
    *(st.fixed_dictionaries({"label": label}) for label in (VALUES, VALUES, st.lists(VALUES, max_size=2))),
    st.fixed_dictionaries({"loss": UNITS}),
    st.fixed_dictionaries({"reward": UNITS}),
)
CONTEXTS = st.sampled_from([None, "u", "v"])
KINDS = st.sampled_from([codec.JSON, codec.JSON, codec.MSGPACK])


def outputs(several):
    if several:
        return st.fixed_dictionaries(dict(output=st.just(UNSET), outputs=st.lists(VALUES, min_size=2, max_size=2)))
    return st.fixed_dictionaries(dict(output=VALUES))


@st.composite
def asked_models(draw, several, served):
    found = []
    for ref in draw(st.lists(st.sampled_from(["a:1", "b:1", "c:2"]), unique=True, max_size=3)):
        asked = dict(propensity=draw(st.sampled_from([0.1, 0.25, 0.5, 1.0, 1.5])), served=draw(served))
        if draw(st.integers(0, 3)) == 0:
            found.append(missing(ref, **asked))
        else:
            found.append(answer(ref, **asked, latency_ms=draw(st.sampled_from([0.0, 2.5])), **draw(outputs(several))))
    return found


@st.composite
def predictions(draw):
    query_id, rarely = draw(IDS), st.integers(0, 4).map(lambda number: number == 0)
    changes = dict(context=draw(CONTEXTS), audited=draw(st.booleans()), query_offset=draw(st.integers(0, 1)))
    changes |= dict(features=draw(st.lists(st.sampled_from([0.5, -1.0, 2.0]), max_size=2)))
    changes |= draw(outputs(several=True)) if query_id == PACKED else {}
    changes |= dict(default=True, reason=draw(st.sampled_from(["late", "low_confidence"]))) if draw(rarely) else {}
    changes |= dict(served_propensity=draw(st.sampled_from([None, 0.3]))) if draw(rarely) else {}
    changes |= dict(policy=None) if draw(rarely) else {}
    application = draw(st.sampled_from(["app", "app", "app", "other"]))
    models = draw(asked_models(query_id == PACKED, st.booleans()))
    return decided(query_id, *models, application=application, **changes)


@st.composite
def audits(draw):
    query_id = draw(IDS)
    models = draw(asked_models(query_id == PACKED, st.just(value=False)))
    return audit(*models, query_id=query_id, query_offset=draw(st.integers(0, 1)))


FEEDBACK = st.builds(
    lambda query_id, application, context, truth: Feedback(
        query_id=query_id, application=application, context=context, **truth
    ),
    IDS, st.sampled_from([None, None, "app", "other"]), CONTEXTS, TRUTHS,
)  # fmt: skip


@st.composite
def logs(draw):
    log = Log()
    for content in draw(st.lists(st.one_of(predictions(), audits(), FEEDBACK, FEEDBACK), min_size=5, max_size=25)):
        kind, at_ms = draw(KINDS), log.now_ms - 1_000 + draw(st.sampled_from([0, 1, 1_000, 5_000]))
        marker = isinstance(content, Feedback) and draw(st.integers(0, 9)) == 0
        try:
            log.add(content, kind=kind, at_ms=at_ms, headers=[(RESTORE, b"r-1")] if marker else [])
        except (OverflowError, ValueError):  # a number that is none in the kind
            continue
    return log


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    log=logs(),
    loss_kind=st.sampled_from(["zero_one", "absolute", "squared"]),
    lists_of=st.integers(1, 9),
    horizon_ms=st.sampled_from([0.0, 5_000.0, float("inf")]),
)
def test_the_join_of_any_log_is_the_naive_one_in_lists_of_any_length(log, **rules):
    rows, counts = rows_of(log, **rules)
    told = sum(row["feedback_offset"] >= 0 for row in rows)
    assert (counts["decisions"], counts["with_feedback"]) == (len(rows), told)
