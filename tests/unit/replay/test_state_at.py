"""The rows as of an offset or a time are what a fold up to there had learned."""

import asyncio

import pytest
from builders.learner_logs import CATALOGUE, HORIZON_S, SAVED, START_MS, Deployment, aged, manifest

from clipper_agents.control.errors import UnusableState
from clipper_agents.replay.state_at import state_at
from clipper_topics.selection_rows import RowKey, saved_rows


@pytest.fixture
def at():
    return Deployment(manifest())


def state(at, **upto):
    return asyncio.run(state_at(at.logs, CATALOGUE, "app", HORIZON_S, **upto))


def rows_now(at):
    return saved_rows({RowKey(*place): row for place, row in at.rows.items() if place[0] == "app" and row.totals})


@pytest.mark.parametrize("every", [1, 5])
def test_the_state_before_an_offset_is_that_of_the_feedback_before_it(every):
    at, early = Deployment(manifest()), Deployment(manifest())
    early.work(7)
    at.work(20, every=every)
    found = state(at, ends={0: 7})
    assert found.rows == rows_now(early)
    assert found.ends == (7, 0)


def test_a_partition_that_is_not_named_counts_whole(at):
    at.work(6)
    at.work(4, partition=1, first=50)
    assert state(at, ends={1: 4}).rows == rows_now(at)


def test_feedback_counts_before_a_time_by_its_stamp(at):
    at.work(5)
    at.logs.now_ms = START_MS + 60_000
    before = rows_now(at)
    at.work(5, first=20)
    assert state(at, at_ms=START_MS + 60_000).rows == before
    assert state(at, at_ms=START_MS + 61_000).rows == rows_now(at)
    assert state(at, at_ms=START_MS - 1).rows == []


def test_a_state_behind_the_table_is_folded_on(at):
    at.work(5)
    for number in range(3):
        at.ask(f"x{number}")
        at.tell(f"x{number}")
    found = state(at, ends={0: 8})
    at.learn()
    assert found.rows == rows_now(at)


def test_a_half_life_that_changed_within_a_step_is_that_of_the_step(at):
    at.work(4)
    at.declare(manifest(revision=2, half_life=2.0))
    for number in range(6):
        at.ask(f"x{number}")
        at.tell(f"x{number}", number % 2)
    at.follow()
    at.learn(most=3)
    before = rows_now(at)
    at.learn()
    assert state(at, ends={0: 7}).rows == before


def test_an_offset_within_a_step_is_folded_as_that_step_was():
    at, unchanged = Deployment(manifest()), Deployment(manifest())
    for one in (at, unchanged):
        one.work(4)
    at.declare(manifest(revision=2, half_life=2.0))
    for one in (at, unchanged):
        for number in range(6):
            one.ask(f"x{number}")
            one.tell(f"x{number}", number % 2)
    at.learn(most=3)
    at.follow()
    at.learn()
    unchanged.learn(most=2)
    assert state(at, ends={0: 6}).rows == rows_now(unchanged)


def test_a_restored_state_counts_from_its_marker_on(at):
    at.work(4)
    before = rows_now(at)
    at.restore("app", SAVED)
    at.learn()
    at.work(2, first=50)
    assert state(at, ends={0: 4}).rows == before
    assert state(at, ends={0: 5}).rows == SAVED


def test_an_offset_that_is_not_in_the_log_is_refused(at):
    at.work(4)
    with pytest.raises(UnusableState, match="goes from 0 to 4"):
        state(at, ends={0: 5})
    with pytest.raises(UnusableState, match="partitions \\[7\\]"):
        state(at, ends={7: 0})


def test_a_state_from_deleted_logs_is_refused_and_a_later_one_is_not():
    at = aged(Deployment(manifest()), 10, 20)
    with pytest.raises(UnusableState, match="from offset 10 on"):
        state(at, ends={0: 9})
    assert state(at, ends={0: 30}).rows == rows_now(at)
    at.work(1, first=200, context="new")
    with pytest.raises(UnusableState, match="is not known"):
        state(at, ends={0: 30})


def test_a_state_behind_a_table_whose_beginning_was_deleted_is_refused(at):
    at.work(4)
    at.logs.now_ms += int(HORIZON_S * 1000) + 1
    at.ask("late")
    at.tell("late")
    at.tell("late")
    for topic in (CATALOGUE.predictions, CATALOGUE.feedback):
        at.logs.delete_before(topic, 0, 3)
    with pytest.raises(UnusableState, match="is not known"):
        state(at, ends={0: 6})


def test_rows_that_were_not_what_the_logs_lead_to_are_told_and_not_restored(at):
    at.work(6)
    good = rows_now(at)
    at.write(("app", "nobody"), at.rows["app", None, 0])
    at.write(("", None), at.rows["", None, 0].__class__(version=1, offset=6))
    at.tell("nobody")
    at.tell("nobody")
    found = state(at, ends={0: 7})
    assert found.rows == good
    assert [one.context for one in found.partings] == ["nobody"]
