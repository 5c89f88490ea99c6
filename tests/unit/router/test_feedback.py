"""Feedback waits for its decision, finds its partition, is stored before it counts, and belongs to one generation."""

import asyncio
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from builders.feedback import feedback, logged
from builders.kafka import FakeLogReader, FakeProducer, record
from builders.query_router import application

from clipper_agents.control.state import ControlState
from clipper_agents.router import feedback as feedback_agent
from clipper_agents.router.decision_index import LogIndex
from clipper_agents.router.feedback import FEEDBACK_A_TURN, FORWARDED, LOOKS, FeedbackProcessor
from clipper_agents.streaming.outbox import Outbox
from clipper_agents.streaming.recovery import StateLock
from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.catalogue import Catalogue
from clipper_topics.control_keys import restore_key
from clipper_topics.feedback import EARLY_FEEDBACK_MS, OUTCOMES
from clipper_topics.logged_records import LoggedRecord, audit_key
from clipper_topics.prediction import ModelAnswer
from clipper_topics.restore import RESTORE, Restore, digests_of, markers_of
from clipper_topics.selection_rows import NO_ROW, SavedRow

CATALOGUE = Catalogue(partitions=3)


class FakeSelection:
    """Rows in memory; each step is noted."""

    def __init__(self):
        self.rows, self.positions, self.on_write, self.beside = {}, {}, lambda: None, {}

    def position(self, partition):
        return self.positions.get(partition, -1)

    def row(self, name, context, partition):
        return self.rows.get((name, context, partition), NO_ROW)

    def contexts(self, name, partition):
        return [context for application, context, of in self.rows if (application, of) == (name, partition)]

    async def write(self, partition, rows, position, beside):
        await asyncio.sleep(0)
        self.beside = beside
        self.on_write()
        self.rows |= {(*key, partition): row for key, row in rows.items()}
        self.positions[partition] = position


class FakeMetrics:
    def __init__(self):
        self.feedback, self.dead = Counter(), Counter()

    def count_feedback(self, outcome, count):
        self.feedback[outcome] += count

    def count_dead_letters(self, topic, kind, count=1):
        self.dead[kind] += count


class CountingIndex(LogIndex):
    """An index that counts how often each key is looked up."""

    def __init__(self, folder, horizon_s):
        super().__init__(folder, horizon_s)
        self.lookups = Counter()

    def of(self, partition):
        return CountedPartition(super().of(partition), self.lookups)


class CountedPartition:
    """The index of one partition; everything but looking up goes straight to it."""

    def __init__(self, index, lookups):
        self._index, self._lookups = index, lookups

    def find(self, keys):
        self._lookups.update(keys)
        return self._index.find(keys)

    def about(self, feedback):
        self._lookups.update((query_id, application) for query_id, application, _ in feedback)
        return self._index.about(feedback)

    def __getattr__(self, name):
        return getattr(self._index, name)


class Fixture:
    """A processor whose queries are answered up to `answered`; decisions in `late` come when the log is read again."""

    def __init__(self, folder):
        self.producer = FakeProducer()
        self.reader = FakeLogReader(self.producer)
        self.audits = CountingIndex(folder / "audits", 3600.0)
        self.decisions, self.selection, self.metrics = (
            CountingIndex(folder / "decisions", 3600.0),
            FakeSelection(),
            FakeMetrics(),
        )
        self.answered, self.late, self.caught_up, self.looked = 0, [], 0, 0
        self.passed_s, self.look_again_s = 0.0, 2 * EARLY_FEEDBACK_MS / 1000
        self.app = SimpleNamespace(
            generation=0, state_lock=StateLock(), outbox=Outbox(self.producer), log_reader=self.reader, consumer=self
        )
        self.control, self.followed, self.on_followed = ControlState(), 0, lambda: None
        applications = {name: application(name, ("a:1",)) for name in ("app", "other")}
        registry = SimpleNamespace(application=applications.get, restore=self.control.restores.get)
        self.processor = FeedbackProcessor(
            self.app, CATALOGUE, registry, self.selection, self.decisions, self.audits, self, self.metrics,
            self.followed_upto, self.passed,
        )  # fmt: skip

    def passed(self):
        self.passed_s += self.look_again_s
        return self.passed_s

    def followed_upto(self):
        self.on_followed()
        return self.followed

    def finished_upto(self, tp):
        self.looked += 1
        self.on_look()
        return self.answered

    def on_look(self):
        pass

    async def catch_up(self, partitions):
        self.caught_up += 1
        for query_id in self.late:
            self.decide(query_id)

    def decide(self, *query_ids, partition=0, application="app"):
        index = self.decisions.of(partition)
        for query_id in query_ids:
            offset = index.last_offset + 1
            index.index([(query_id, logged(offset, query_id, application))], offset, 1e9)

    async def learn(self, *records, partition=0, generation=0):
        return await self.processor.learn(partition, list(records), generation)

    def count(self, partition=0, application="app"):
        return self.selection.row(application, None, partition).applied

    def log(self, topic, partition=0):
        return self.producer.logs.get((topic, partition), [])

    @property
    def applied(self):
        return self.decisions.of(0).applied_feedback([0, 1])


@pytest.fixture
async def fixture(tmp_path):
    made = Fixture(tmp_path)
    yield made
    made.decisions.keep_only(())


def one(offset, query_id, **changes):
    return feedback(offset, query_id, **changes)[0]


async def test_feedback_is_stored_and_noted_as_applied(fixture):
    fixture.decide("q1", "q2")
    assert await fixture.learn(one(0, "q1"), one(1, "q2"), one(2, "q1"))
    assert (fixture.count(), fixture.selection.position(0), fixture.applied) == (2, 2, [0, 1])
    assert fixture.metrics.feedback == {"applied": 2, "duplicate": 1}
    assert fixture.looked == 0


async def test_feedback_up_to_the_position_is_skipped(fixture):
    fixture.decide("q1", "q2")
    fixture.selection.positions[0] = 5
    assert await fixture.learn(one(4, "q1"), one(5, "q2"))
    assert (fixture.count(), fixture.selection.position(0)) == (0, 5)
    assert await fixture.learn(one(5, "q1"), one(6, "q2"))
    assert (fixture.count(), fixture.selection.position(0)) == (1, 6)


async def test_a_large_step_is_folded_in_turns_and_written_once(fixture, monkeypatch):
    writes, largest = [], []
    fixture.selection.on_write = lambda: writes.append(fixture.selection.position(0))
    folded = feedback_agent.learn
    monkeypatch.setattr(
        feedback_agent, "learn", lambda some, *more: (largest.append(len(some)), folded(some, *more))[1]
    )
    ids = [f"q{number}" for number in range(2 * FEEDBACK_A_TURN + 1)]
    fixture.decide(*ids)
    records = [one(offset, query_id) for offset, query_id in enumerate([*ids, ids[0]])]
    learning = asyncio.ensure_future(fixture.learn(*records))
    turns = 0
    while not learning.done():
        turns += 1
        await asyncio.sleep(0)
    assert await learning
    assert turns > len(largest) == 3
    assert max(largest) == FEEDBACK_A_TURN
    assert fixture.metrics.feedback == {"applied": len(ids), "duplicate": 1}
    assert (fixture.count(), writes) == (len(ids), [-1])


async def test_feedback_before_its_prediction_waits_for_it(fixture):
    fixture.producer.append(CATALOGUE.queries, 0, None, b"")

    def answer_at_the_third_look():
        if fixture.looked == 3:
            fixture.decide("q1")

    fixture.on_look = answer_at_the_third_look
    assert await fixture.learn(one(0, "q1"))
    assert (fixture.count(), fixture.looked, fixture.caught_up) == (1, 3, 0)


async def test_a_decision_that_another_process_wrote_is_read_from_the_log(fixture):
    fixture.late = ["q1"]
    assert await fixture.learn(one(0, "q1"))
    assert (fixture.count(), fixture.caught_up) == (1, 1)


async def test_feedback_without_a_decision_is_a_dead_letter_once_all_is_answered(fixture):
    fixture.decide("q2")
    assert await fixture.learn(one(0, "q1"), one(1, "q2"))
    assert (fixture.count(), fixture.caught_up, fixture.metrics.dead) == (1, 1, {"OrphanFeedback": 1})
    ((_, value, headers),) = fixture.log(CATALOGUE.dead_letters)
    assert b'"q1"' in value
    assert "no decision about query 'q1'" in dict(headers)["__streams.errors.message"].decode()


async def test_an_undecodable_feedback_becomes_a_dead_letter_and_moves_the_position(fixture):
    broken = one(0, "q1")
    for number, value in enumerate((b"{", b'{"query_id": "q1"}', b'{"query_id": "q1", "loss": 2}', b"")):
        assert await fixture.learn(replace(broken, value=value, offset=number))
    assert (len(fixture.log(CATALOGUE.dead_letters)), fixture.selection.position(0)) == (4, 3)
    assert fixture.metrics.feedback == {"invalid": 4}


async def test_feedback_that_asks_for_it_is_acknowledged_with_what_became_of_it(fixture):
    fixture.decide("q1", "q2")
    asking, echoed = {"ack": True}, ("correlation-id", b"7")
    records = [
        one(0, "q1", **asking, headers=[echoed, ("tenant", b"1")]),
        one(1, "q1", **asking),
        one(2, "q1"),
        one(3, "q3", **asking, application="app"),
        one(4, "q2", **asking, label="text", application="other"),
        replace(one(5, "q2"), value=b'{"query_id": "q2", "ack": true, "loss": 2}'),
        replace(one(6, "q2"), value=b'{"query_id": "q2", "ack": true', headers=tuple(codec.MSGPACK_HEADERS)),
    ]
    assert await fixture.learn(*records)
    ((topic, acks),) = fixture.selection.beside.items()
    told = [codec.feedback_acks.decode(value, headers) for _, value, headers in acks]
    assert topic == CATALOGUE.feedback_acks
    assert [(ack.query_id, ack.application, ack.outcome, ack.feedback_offset) for ack in told] == [
        ("q1", None, "applied", 0), ("q1", None, "duplicate", 1), ("q3", "app", "orphan", 3),
        ("q2", "other", "orphan", 4), ("q2", None, "invalid", 5),
    ]  # fmt: skip
    assert [ack.explanation is None for ack in told] == [True, True, False, False, False]
    assert (acks[0][0], acks[0][2]) == (b"q1", [*codec.JSON_HEADERS, echoed])
    assert set(fixture.metrics.feedback) <= set(OUTCOMES)


async def test_feedback_for_another_partition_is_sent_on_once(fixture):
    assert await fixture.learn(one(0, "2@77"), one(1, "0@5", partition=0))
    ((key, value, headers),) = fixture.log(CATALOGUE.feedback, 2)
    assert (key, dict(headers)[FORWARDED]) == (b"2@77", b"0")
    assert b"2@77" in value
    assert fixture.metrics.feedback == {"forwarded": 1, "orphan": 1}
    assert await fixture.learn(one(9, "1@77", partition=2, headers=[(FORWARDED, b"0")]), partition=2)
    assert fixture.log(CATALOGUE.feedback, 1) == []


async def test_feedback_about_an_own_id_that_looks_like_a_place_is_waited_for_here(fixture):
    fixture.late = ["2-1001"]
    assert await fixture.learn(one(0, "2-1001"))
    assert (fixture.count(), fixture.log(CATALOGUE.feedback, 2)) == (1, [])


async def test_feedback_whose_decision_is_here_is_not_sent_on_whatever_its_id_says(fixture):
    fixture.decide("2@1")
    assert await fixture.learn(one(0, "2@1"))
    assert (fixture.count(), fixture.log(CATALOGUE.feedback, 2)) == (1, [])


async def test_an_id_that_names_no_partition_of_ours_is_waited_for_here(fixture):
    fixture.late = ["77@1"]
    assert await fixture.learn(one(0, "77@1"))
    assert (fixture.count(), fixture.caught_up) == (1, 1)


async def test_an_id_of_two_applications_takes_a_feedback_about_each_of_its_decisions(fixture):
    fixture.decide("q", application="other")
    fixture.decide("q")
    whose = ("app", None, "app", "other", "nobody")
    assert await fixture.learn(*(one(offset, "q", application=name) for offset, name in enumerate(whose)))
    assert (fixture.count(), fixture.count(application="other")) == (1, 1)
    assert fixture.decisions.of(0).applied_feedback([0, 1]) == [1, 0]
    assert fixture.metrics.feedback == {"applied": 2, "duplicate": 2, "orphan": 1}
    ((_, _, headers),) = fixture.log(CATALOGUE.dead_letters)
    assert "query 'q' of application 'nobody'" in dict(headers)["__streams.errors.message"].decode()


async def test_feedback_waits_for_its_applications_decision_while_another_has_the_id(fixture):
    fixture.decide("q", application="other")
    fixture.late = ["q"]
    assert await fixture.learn(one(0, "q", application="app"))
    assert (fixture.count(), fixture.caught_up, fixture.metrics.dead) == (1, 1, {})


async def test_nothing_is_learned_in_another_generation(fixture):
    fixture.decide("q1")
    fixture.app.generation = 1
    assert not await fixture.learn(one(0, "q1"), generation=0)
    assert (fixture.count(), fixture.selection.position(0)) == (0, -1)


async def test_a_generation_that_ends_while_a_decision_is_waited_for_ends_the_step(fixture):
    fixture.producer.append(CATALOGUE.queries, 0, None, b"")

    def lose():
        fixture.app.generation = -1

    fixture.on_look = lose
    assert not await fixture.learn(one(0, "q1"))
    assert fixture.selection.position(0) == -1
    assert fixture.log(CATALOGUE.dead_letters) == []
    assert not fixture.app.state_lock._partitions[0].locked()


async def test_a_step_and_a_recovery_never_run_side_by_side(fixture):
    fixture.decide("q1")
    fixture.selection.on_write = lambda: locked.append(fixture.app.state_lock._partitions[0].locked())
    locked = []
    assert await fixture.learn(one(0, "q1"))
    assert locked == [True]


async def test_applied_feedback_is_rebuilt_from_the_feedback_topic_up_to_the_position(fixture):
    fixture.decide("q1", "q2")
    for entry in (one(0, "q1"), one(1, "q1"), one(2, "q2"), one(3, "unknown")):
        fixture.producer.append(CATALOGUE.feedback, 0, entry.key, entry.value)
    fixture.selection.positions[0] = 1
    await fixture.processor.rebuild_applied_feedback({0: 0})
    assert (fixture.applied, fixture.decisions.of(0).applied_feedback_upto) == ([0, None], 1)
    assert fixture.count() == 0
    fixture.selection.positions[0] = 3
    await fixture.processor.rebuild_applied_feedback({0: 0})
    assert (fixture.applied, fixture.decisions.of(0).applied_feedback_upto) == ([0, 2], 3)


async def test_a_feedback_from_the_future_does_not_age_the_index(fixture):
    """A clock that is an hour wrong would make room for itself by dropping every decision."""
    now_s = time.time()
    fixture.decisions.of(0).index([("q1", logged(0, "q1"))], 0, now_s)
    entry = one(0, "q1")
    fixture.producer.append(CATALOGUE.feedback, 0, entry.key, entry.value)
    fixture.reader._timestamp_ms = int((now_s + 3 * 3600) * 1000)
    fixture.selection.positions[0] = 0
    await fixture.processor.rebuild_applied_feedback({0: 0})
    assert fixture.applied == [None, None], "it came more than an hour after its query"
    assert fixture.decisions.of(0).find(["q1"]) != [None]


async def test_feedback_waits_for_its_query_for_a_time_of_the_log(fixture):
    """An application may say what was true before its query is in the log: the two topics know no order."""
    fixture.look_again_s = EARLY_FEEDBACK_MS / 1000 / 10
    looks = 0

    def decide_at_the_third_look(passed=fixture.passed):
        nonlocal looks
        looks += 1
        if looks == 4:
            fixture.decide("q1")
        return passed()

    fixture.processor._passed = decide_at_the_third_look
    assert await fixture.learn(one(0, "q1"))
    assert fixture.metrics.feedback == {"applied": 1}


async def test_feedback_that_came_too_early_is_an_orphan_also_when_it_is_read_again(fixture):
    """Else what a restart rebuilds would say that it counted, and the next feedback would not count."""
    early = one(0, "q1")
    too_late_ms = early.timestamp + EARLY_FEEDBACK_MS + 1
    fixture.decisions.of(0).index([("q1", logged(0, "q1", queried_at_ms=too_late_ms))], 0, 1e9)
    assert await fixture.learn(early)
    assert fixture.metrics.feedback == {"orphan": 1}
    fixture.producer.append(CATALOGUE.feedback, 0, early.key, early.value)
    fixture.decisions.of(0).applied_feedback_upto = -1
    await fixture.processor.rebuild_applied_feedback({0: 0})
    assert fixture.applied == [None, None]


async def test_old_decisions_stay_while_feedback_or_queries_are_behind(fixture):
    """A router that was down for longer than the horizon refused feedback that had come in time."""
    index = fixture.decisions.of(0)
    index.index([("q1", logged(0, "q1"))], 0, 1e9)
    index.index([("q2", logged(1, "q2"))], 1, 1e9 + 4 * 3600)
    fixture.app.owned_partitions = lambda topic: [0]
    fixture.producer.append(CATALOGUE.feedback, 0, None, b"not read yet")

    async def forgotten_after(looks):
        for _ in range(looks):
            await fixture.processor.forget_old()
        return [found is None for found in index.find(["q1", "q2"])]

    assert not any(await forgotten_after(LOOKS))
    fixture.answered = 1
    assert not any(await forgotten_after(LOOKS)), "queries may be behind as well"
    index.decided([("q3", "app", (1e9 + 4 * 3600) * 1000)])
    fixture.answered = 0
    assert not any(await forgotten_after(1))
    fixture.reader.stale_ends = [0] * (LOOKS - 1)
    assert not any(await forgotten_after(LOOKS)), "a broker that was deposed said for a while that all was read"
    fixture.answered = 1
    assert await forgotten_after(LOOKS) == [True, False]


ROWS = [SavedRow(partition=0, totals={"a:1": (2.0, 1.0, 2.0, 1.0)})]


def declaration(fixture, restore_id="r-0"):
    """Append a declaration to the control topic, which nobody has followed yet."""
    value = codec.restores.encode(
        Restore(application="app", at_ms=0, by="ada", digests=digests_of(markers_of("app", ROWS, 3)))
    )
    key = restore_key(restore_id)
    return record(fixture.producer.append(CATALOGUE.control, 0, key, value), value, key)


def marker(offset, restore_id="r-0", value=None):
    headers = [*codec.MSGPACK_HEADERS, (RESTORE, restore_id.encode())]
    return record(offset, value or markers_of("app", ROWS, 3)[0], None, CATALOGUE.feedback, headers=headers)


async def test_a_marker_waits_until_its_declaration_has_been_followed(fixture):
    fixture.decide("q1", "q2")
    followed, looks = declaration(fixture), []

    def follow_at_the_third_look():
        looks.append(fixture.selection.position(0))
        if len(looks) == 3:
            fixture.control.take([followed])
            fixture.followed = 1

    fixture.on_followed = follow_at_the_third_look
    assert await fixture.learn(one(0, "q1"), marker(1), one(2, "q2"))
    assert looks == [-1, -1, -1]
    ((totals,),) = [fixture.selection.row("app", None, 0).totals]
    assert (totals.count, fixture.count(), fixture.selection.position(0)) == (3.0, 2, 2)
    assert fixture.metrics.feedback == {"applied": 2, "restored": 1}
    assert fixture.log(CATALOGUE.dead_letters) == []


async def test_an_undeclared_marker_is_a_dead_letter_once_the_control_topic_is_read(fixture):
    fixture.producer.append(CATALOGUE.control, 0, b"model/a:1", b"{}")

    def follow():
        fixture.followed = 1

    fixture.on_followed = follow
    assert await fixture.learn(marker(0), marker(1, value=b"junk"))
    assert (fixture.selection.rows, fixture.selection.position(0)) == ({}, 1)
    assert fixture.metrics.dead == {"RefusedMarker": 2}
    said = [dict(headers)["__streams.errors.message"].decode() for _, _, headers in fixture.log(CATALOGUE.dead_letters)]
    assert all("no restore 'r-0' is declared on the control topic" in message for message in said)


async def test_a_generation_that_ends_while_a_declaration_is_waited_for_ends_the_step(fixture):
    declaration(fixture)

    def lose():
        fixture.app.generation = -1

    fixture.on_followed = lose
    assert not await fixture.learn(marker(0))
    assert (fixture.selection.position(0), fixture.log(CATALOGUE.dead_letters)) == (-1, [])


async def test_applied_feedback_is_rebuilt_across_markers(fixture):
    fixture.decide("q1", "q2")
    for entry in (one(0, "q1"), marker(1), one(2, "q2")):
        fixture.producer.append(CATALOGUE.feedback, 0, entry.key, entry.value, entry.headers)
    fixture.selection.positions[0] = 2
    await fixture.processor.rebuild_applied_feedback({0: 0})
    assert (fixture.applied, fixture.decisions.of(0).applied_feedback_upto) == ([0, 2], 2)
    assert fixture.log(CATALOGUE.dead_letters) == []


def audit(query_id, query_offset, **outputs):
    models = [ModelAnswer(model=name, version="1", propensity=0.5, output=said) for name, said in outputs.items()]
    return codec.audits.encode(Audit(query_id=query_id, query_offset=query_offset, models=models))


def decide_with_audit(fixture, query_id, query_offset):
    index = fixture.decisions.of(0)
    told = logged(0, query_id, audited=True, query_offset=query_offset)._replace(audited=True)
    index.index([(query_id, told)], index.last_offset + 1, 1e9)


def record_audit(fixture, query_id, query_offset, **outputs):
    index, offset = fixture.audits.of(0), fixture.audits.of(0).last_offset + 1
    value = audit(query_id, query_offset, **outputs)
    index.index([(audit_key(query_id, query_offset), LoggedRecord(offset, value, msgpack=False))], offset, 1e9)


def losses(fixture):
    return {totals.model: totals.loss for totals in fixture.selection.row("app", None, 0).totals}


async def test_feedback_about_an_audited_query_waits_for_the_audit_and_scores_it_too(fixture):
    fixture.producer.append(CATALOGUE.queries, 0, None, b"")
    decide_with_audit(fixture, "q1", 7)

    def record_at_the_third_look():
        if fixture.looked == 3:
            record_audit(fixture, "q1", 7, shadow=2)

    fixture.on_look = record_at_the_third_look
    assert await fixture.learn(one(0, "q1"))
    assert (fixture.looked, losses(fixture)) == (3, {"a:1": 0.0, "shadow:1": 1.0})


async def test_an_audit_that_never_came_holds_up_no_feedback_once_the_query_is_finished(fixture):
    decide_with_audit(fixture, "q1", 7)
    record_audit(fixture, "q1", 8, shadow=2)  # of another record with this id
    assert await fixture.learn(one(0, "q1"))
    assert (fixture.caught_up, losses(fixture)) == (1, {"a:1": 0.0})


async def test_applied_feedback_about_audited_queries_is_rebuilt_with_their_audits(fixture):
    """Whether a feedback can be used may depend on the audit alone: then it has to when applied feedback is rebuilt."""
    decide_with_audit(fixture, "q1", 7)
    record_audit(fixture, "q1", 7, shadow=2)
    for told in (one(0, "q1"), one(1, "q1")):
        fixture.producer.append(CATALOGUE.feedback, 0, told.key, told.value)
    fixture.selection.positions[0] = 1
    await fixture.processor.rebuild_applied_feedback({0: 0})
    assert fixture.applied == [0, None]


async def test_each_decision_and_audit_of_a_batch_is_looked_up_once(fixture):
    fixture.decide("q1")
    decide_with_audit(fixture, "q2", 7)
    record_audit(fixture, "q2", 7, shadow=2)
    assert await fixture.learn(one(0, "q1"), one(1, "q2"), one(2, "q1"))
    assert (fixture.decisions.lookups, fixture.audits.lookups) == (
        {("q1", None): 1, ("q2", None): 1},
        {audit_key("q2", 7): 1},
    )


async def test_only_what_was_missing_is_looked_up_again_and_only_after_a_wait(fixture):
    fixture.producer.append(CATALOGUE.queries, 0, None, b"")
    fixture.decide("q1")
    decide_with_audit(fixture, "q2", 7)

    def finish_at_the_third_look():
        if fixture.looked == 3:
            record_audit(fixture, "q2", 7, shadow=2)
            fixture.decide("q3")

    fixture.on_look = finish_at_the_third_look
    assert await fixture.learn(one(0, "q1"), one(1, "q2"), one(2, "q3"))
    assert fixture.decisions.lookups == {("q1", None): 1, ("q2", None): 1, ("q3", None): 4}
    assert fixture.audits.lookups == {audit_key("q2", 7): 4}


async def test_applied_feedback_is_rebuilt_with_one_lookup_of_each_decision(fixture):
    fixture.decide("q1", "q2")
    for entry in (one(0, "q1"), one(1, "q2")):
        fixture.producer.append(CATALOGUE.feedback, 0, entry.key, entry.value)
    fixture.selection.positions[0] = 1
    await fixture.processor.rebuild_applied_feedback({0: 0})
    assert fixture.decisions.lookups == {("q1", None): 1, ("q2", None): 1}
