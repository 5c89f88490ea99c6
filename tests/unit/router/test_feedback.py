"""Feedback waits for its decision, finds its partition, is stored before it counts, and belongs to one generation."""

import asyncio
from dataclasses import replace

import pytest
from builders.feedback import AT_MS
from builders.kafka import record
from unit.router.rig import AT_S, CATALOGUE, one, settle

from clipper_agents.router.feedback import FEEDBACK_A_TURN, READ_POINTS
from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.control_keys import restore_key
from clipper_topics.feedback import EARLY_FEEDBACK_MS, OUTCOMES, forwarded_header
from clipper_topics.prediction import ModelAnswer
from clipper_topics.restore import RESTORE, Restore, digests_of, markers_of
from clipper_topics.selection_rows import SavedRow

EARLY_S = EARLY_FEEDBACK_MS / 1000


def outcomes(rig):
    return rig.counts("clipper_feedback_total", "outcome")


def applied(rig):
    return rig.decisions[0].applied_feedback([0, 1])


def count(rig, application="app"):
    return rig.selection.row(application, None, 0).applied


def refusals(rig):
    """Kinds of the dead letters, and what they say."""
    letters = [dict(headers)["__streams.errors.message"].decode() for *_, headers in rig.log(CATALOGUE.dead_letters)]
    return rig.counts("clipper_dead_letters_total", "reason"), letters


async def learned(rig, *entries, position=None):
    """Feedback up to a position counted, as the table says; what the index knows of it is rebuilt from the topic."""
    for entry in entries:
        rig.producer.append(CATALOGUE.feedback, 0, entry.key, entry.value, entry.headers)
    await rig.selection.write(0, {}, len(entries) - 1 if position is None else position)
    await rig.learner.rebuild_applied_feedback({0: 0})
    return applied(rig), rig.decisions[0].applied_feedback_upto


STORIES = {
    "each query counts once": ("q1 q2", "", "q1 q2 q1", dict(applied=2, duplicate=1), [0, 1]),
    "one without a decision is an orphan": ("q2", "", "q1 q2", dict(orphan=1, applied=1), [1, None]),
    "another process wrote the decision": ("", "q1", "q1", dict(applied=1), [0, None]),
    "an id that looks like a place": ("", "2-1001", "2-1001", dict(applied=1), [0, None]),
    "a place in no partition of ours": ("", "77@1", "77@1", dict(applied=1), [0, None]),
    "a place elsewhere whose decision is here": ("2@1", "", "2@1", dict(applied=1), [0, None]),
    "a place elsewhere": ("", "", "2@77 0@5", dict(forwarded=1, orphan=1), [None, None]),
    "two applications have the id": ("q/other q", "", "q/app q q/other", dict(applied=2, duplicate=1), [1, 0]),
    "an application without it has the id": ("q", "", "q/x q", dict(applied=1, orphan=1), [1, None]),
    "another application has the id": ("q/other", "q", "q/app", dict(applied=1), [None, 0]),
}  # fmt: skip
"""Queries whose decisions are read and unread, feedback about queries, what becomes of it, and of which decision."""


@pytest.mark.parametrize(("read", "unread", "told", "expected", "by_decision"), STORIES.values(), ids=STORIES)
async def test_feedback_counts_once_where_its_decision_is(rig, read, unread, told, expected, by_decision):
    def named(words):
        return [(query_id, name or None) for query_id, _, name in (word.partition("/") for word in words.split())]

    for query_id, name in named(read):
        await rig.decide(query_id, application=name or "app")
    for query_id, name in named(unread):
        rig.predict(query_id, application=name or "app")
    reads, entries = rig.log_reader.reads, named(told)
    assert await rig.feed(*(one(offset, query_id, application=name) for offset, (query_id, name) in enumerate(entries)))
    assert (outcomes(rig), applied(rig), rig.selection.position(0)) == (expected, by_decision, len(entries) - 1)
    assert count(rig) + count(rig, "other") == expected.get("applied", 0)
    assert (rig.log_reader.reads > reads) == bool(unread or "orphan" in expected), (
        "the log is read where one is missing"
    )
    assert len(rig.log(CATALOGUE.feedback, 2)) == expected.get("forwarded", 0)
    assert refusals(rig)[0].get("OrphanFeedback", 0) == expected.get("orphan", 0)


async def test_feedback_up_to_the_position_is_skipped(rig):
    await rig.decide("q1", "q2")
    await rig.selection.write(0, {}, 5)
    for offsets, counted, position in (((4, 5), 0, 5), ((5, 6), 1, 6)):
        assert await rig.feed(one(offsets[0], "q1"), one(offsets[1], "q2"))
        assert (count(rig), rig.selection.position(0)) == (counted, position)


async def test_a_large_step_is_folded_in_turns_and_written_once(rig):
    ids = [f"q{number}" for number in range(2 * FEEDBACK_A_TURN + 1)]
    await rig.decide(*ids)
    learning = asyncio.ensure_future(rig.feed(*(one(offset, name) for offset, name in enumerate([*ids, ids[0]]))))
    turns = 0
    while not learning.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > len(ids) // FEEDBACK_A_TURN
    assert outcomes(rig) == {"applied": len(ids), "duplicate": 1}
    assert (count(rig), len(rig.table.writes)) == (len(ids), 1)


@pytest.mark.parametrize("unfinished", [1, 0], ids=["its query is finished", "the log is later"])
async def test_feedback_before_its_prediction_waits_for_it(rig, unfinished):
    """An application may say what was true before its query is in the log: the two topics know no order."""
    learning = await rig.begin_to_feed(
        one(0, "q1"), seconds=2 * EARLY_S if unfinished else EARLY_S / 2, unfinished=unfinished
    )
    assert (count(rig), rig.log_reader.reads) == (0, 0)
    await rig.decide("q1")
    reads = rig.log_reader.reads
    assert await learning
    assert (count(rig), outcomes(rig), rig.log_reader.reads) == (1, {"applied": 1}, reads)


async def test_an_undecodable_feedback_becomes_a_dead_letter_and_moves_the_position(rig):
    broken = [b"{", b'{"query_id": "q1"}', b'{"query_id": "q1", "loss": 2}', b""]
    assert await rig.feed(*(replace(one(number, "q1"), value=value) for number, value in enumerate(broken)))
    assert ([value for _, value, _ in rig.log(CATALOGUE.dead_letters)], rig.selection.position(0)) == (broken, 3)
    assert outcomes(rig) == {"invalid": 4}


async def test_feedback_that_asks_for_it_is_acknowledged_with_what_became_of_it(rig):
    await rig.decide("q1", "q2")
    asking, echoed = {"ack": True}, ("correlation-id", b"7")
    assert await rig.feed(
        one(0, "q1", **asking, headers=[echoed, ("tenant", b"1")]),
        one(1, "q1", **asking),
        one(2, "q1"),
        one(3, "q3", **asking, application="app"),
        one(4, "q2", **asking, label="text", application="other"),
        replace(one(5, "q2"), value=b'{"query_id": "q2", "ack": true, "loss": 2}'),
        replace(one(6, "q2"), value=b'{"query_id": "q2", "ack": true', headers=tuple(codec.MSGPACK_HEADERS)),
    )
    acks = rig.log(CATALOGUE.feedback_acks)
    told = [codec.feedback_acks.decode(value, headers) for _, value, headers in acks]
    assert [
        (ack.query_id, ack.application, ack.outcome, ack.feedback_offset, ack.explanation is None) for ack in told
    ] == [
        ("q1", None, "applied", 0, True), ("q1", None, "duplicate", 1, True), ("q3", "app", "orphan", 3, False),
        ("q2", "other", "orphan", 4, False), ("q2", None, "invalid", 5, False),
    ]  # fmt: skip
    assert (acks[0][0], acks[0][2]) == (b"q1", [*codec.JSON_HEADERS, echoed])
    assert set(outcomes(rig)) <= set(OUTCOMES)


async def test_feedback_for_another_partition_is_sent_on_once(rig):
    assert await rig.feed(one(0, "2@77"))
    ((key, value, headers),) = rig.log(CATALOGUE.feedback, 2)
    assert (key, headers[-1], b"2@77" in value) == (b"2@77", forwarded_header(0, AT_MS), True)
    assert await rig.feed(one(9, "1@77", partition=2, headers=headers), partition=2)
    assert rig.log(CATALOGUE.feedback, 1) == []


async def test_feedback_that_was_sent_on_counts_at_the_time_when_it_was_said(rig):
    """Its copy came later than the horizon behind the query while routers were away."""
    late_ms = AT_MS + 4 * 3_600_000
    await rig.decide("0@1", "0@2")
    sent_on, late = one(0, "0@1", headers=[forwarded_header(1, AT_MS)]), one(1, "0@2")
    sent_on.timestamp = late.timestamp = late_ms
    assert await rig.feed(sent_on, late)
    assert outcomes(rig) == {"applied": 1, "orphan": 1}


WAITS = {"its time": EARLY_S / 2, "its query": 2 * EARLY_S, "a declaration": EARLY_S}


@pytest.mark.parametrize("awaited", WAITS)
async def test_nothing_is_learned_once_its_generation_has_ended_whatever_it_waits_for(rig, awaited):
    await rig.decide("q2")
    assert not await rig.feed(one(0, "q2"), generation=1)
    declare(rig)
    last = marker(1) if awaited == "a declaration" else one(1, "q1")
    learning = await rig.begin_to_feed(one(0, "q2"), last, seconds=WAITS[awaited])
    rig.generation = -1
    assert not await learning
    assert (count(rig), rig.selection.position(0), rig.log(CATALOGUE.dead_letters)) == (0, -1, [])
    async with rig.state_lock.of_all():
        """Nobody holds it any more."""


async def test_a_step_and_a_recovery_never_run_side_by_side(rig):
    await rig.decide("q1")
    async with rig.state_lock.of_all():
        learning = asyncio.ensure_future(rig.feed(one(0, "q1"), one(1, "q2")))
        await settle(EARLY_S / 2)
        assert count(rig) == 0
    await settle(EARLY_S / 2)
    assert not learning.done()
    async with rig.state_lock.of_all():
        assert (learning.done(), count(rig)) == (True, 1), "a recovery waits for the step, as the step for a decision"


async def test_applied_feedback_is_rebuilt_from_the_feedback_topic_up_to_the_position(rig):
    await rig.decide("q1", "q2")
    entries = one(0, "q1"), one(1, "q1"), marker(2), one(3, "q2"), one(4, "unknown")
    assert await learned(rig, *entries, position=1) == ([0, None], 1)
    for _ in range(2):  # the second time nothing is left to do
        assert await learned(rig, position=4) == ([0, 3], 4)
    assert (count(rig), rig.log(CATALOGUE.dead_letters)) == (0, [])


async def test_a_feedback_from_the_future_does_not_age_the_index(rig):
    """A clock that is an hour wrong would make room for itself by dropping every decision."""
    await rig.decide("q1")
    rig.log_reader._timestamp_ms += 3 * 3_600_000
    assert await learned(rig, one(0, "q1")) == ([None, None], 0), "it came more than an hour after its query"
    assert rig.found("q1") == [0]


async def test_feedback_that_came_too_early_is_an_orphan_also_when_it_is_read_again(rig):
    """Else what a restart rebuilds would say that it counted, and the next feedback would not count."""
    early = one(0, "q1")
    await rig.decide("q1", queried_at_ms=early.timestamp + EARLY_FEEDBACK_MS + 1)
    assert await rig.feed(early)
    assert outcomes(rig) == {"orphan": 1}
    rig.decisions[0].applied_feedback_upto = -1
    assert await learned(rig, early) == ([None, None], 0)


async def test_old_decisions_stay_while_feedback_or_queries_are_behind_in_any_partition(rig):
    """A router that was down for longer than the horizon refused feedback that had come in time."""
    later_s = AT_S + 4 * 3600
    await rig.decide("q1")
    rig.log_reader._timestamp_ms = int(later_s * 1000)
    await rig.decide("q2")
    for partition in (0, 1):
        rig.producer.append(CATALOGUE.feedback, partition, None, b"not read yet")

    async def forgotten_after(looks, unread):
        rig.unfinished[CATALOGUE.feedback] = unread
        for _ in range(looks):
            await rig.learner.forget_old()
        return [offset is None for offset in rig.found("q1", "q2")]

    rig.since_ms = later_s * 1000
    assert not any(await forgotten_after(2 * READ_POINTS, 1))
    rig.log_reader.stale_ends = [0] * (READ_POINTS - 1)
    rig.log_reader.older.add(CATALOGUE.feedback)
    assert not any(await forgotten_after(READ_POINTS, 1)), (
        "a broker that was deposed said for a while that all was read"
    )
    rig.since_ms = AT_MS
    assert not any(await forgotten_after(2 * READ_POINTS, 0)), "a query of then is not answered yet"
    rig.since_ms = later_s * 1000
    assert await forgotten_after(1, 0) == [True, False]


ROWS = [SavedRow(partition=0, totals={"a:1": (2.0, 1.0, 2.0, 1.0)})]
MARKER, RESTORE_KEY = markers_of("app", ROWS, 3)[0], restore_key("r-0")


def marker(offset, value=MARKER):
    headers = [*codec.MSGPACK_HEADERS, (RESTORE, b"r-0")]
    return record(offset, value, None, CATALOGUE.feedback, headers=headers)


def declare(rig, key=RESTORE_KEY):
    """Declare a restore, which nobody has followed yet."""
    restore = Restore(application="app", at_ms=0, by="ada", digests=digests_of(markers_of("app", ROWS, 3)))
    value = codec.restores.encode(restore)
    return record(rig.producer.append(CATALOGUE.control, 0, key, value), value, key)


async def test_a_marker_waits_until_its_declaration_has_been_followed(rig):
    await rig.decide("q1", "q2")
    declared = declare(rig)
    learning = await rig.begin_to_feed(one(0, "q1"), marker(1), one(2, "q2"), seconds=EARLY_S)
    assert rig.selection.position(0) == -1
    rig.control.take([declared])
    rig.followed = 1
    assert await learning
    (totals,) = rig.selection.row("app", None, 0).totals
    assert (totals.count, count(rig), rig.selection.position(0)) == (3.0, 2, 2)
    assert (outcomes(rig), rig.log(CATALOGUE.dead_letters)) == ({"applied": 2, "restored": 1}, [])


async def test_an_undeclared_marker_is_a_dead_letter_once_the_control_topic_is_read(rig):
    declare(rig, b"model/a:1")
    learning = await rig.begin_to_feed(marker(0), marker(1, b"junk"), seconds=EARLY_S)
    rig.followed = 1
    assert await learning
    assert (rig.selection.row("app", None, 0).offset, rig.selection.position(0)) == (-1, 1)
    kinds, letters = refusals(rig)
    assert kinds == {"RefusedMarker": 2}
    assert all("no restore 'r-0' is declared on the control topic" in why for why in letters)


async def audit(rig, query_offset):
    """A version on trial said 2 about `q1`, where the served one said 1."""
    said = ModelAnswer(model="shadow", version="1", propensity=0.5, output=2)
    value = codec.audits.encode(Audit(query_id="q1", query_offset=query_offset, models=[said]))
    rig.producer.append(CATALOGUE.audits, 0, None, value)
    await rig.logs.catch_up([0])


def losses(rig):
    return {totals.model: totals.loss for totals in rig.selection.row("app", None, 0).totals}


async def test_feedback_about_an_audited_query_waits_for_the_audit_and_scores_it_too(rig):
    await rig.decide("q1", audited=True, query_offset=7)
    rig.first = 8
    learning = await rig.begin_to_feed(one(0, "q1"), seconds=2 * EARLY_S)
    await audit(rig, 7)
    assert await learning
    assert losses(rig) == {"a:1": 0.0, "shadow:1": 1.0}


async def test_an_audit_that_never_came_holds_up_no_feedback_once_the_query_is_finished(rig):
    await rig.decide("q1", audited=True, query_offset=7)
    await audit(rig, 8)  # of another record with this id
    assert await rig.feed(one(0, "q1"))
    assert losses(rig) == {"a:1": 0.0}


async def test_applied_feedback_about_audited_queries_is_rebuilt_with_their_audits(rig):
    """Whether a feedback can be used may depend on the audit alone: then it has to when applied feedback is rebuilt."""
    await rig.decide("q1", audited=True, query_offset=7, outputs=(), output=None)
    await audit(rig, 7)
    assert await learned(rig, one(0, "q1"), one(1, "q1")) == ([0, None], 1)
