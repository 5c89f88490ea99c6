"""The table is compared with the fold of the logs: what differs is found and named, and what is equal is called so."""

import dataclasses

import msgspec
import oracle
import pytest
from builders.learner_logs import CATALOGUE, LATER_MS, SAVED, Deployment, aged, encode, flipped, manifest, verified

from clipper_topics.selection_rows import RowKey, SelectionRow


@pytest.fixture
def at():
    return Deployment(manifest())


def test_a_table_that_a_learner_wrote_is_equal_in_every_partition_and_context():
    at = Deployment(manifest(), manifest("other"))
    at.work(20, every=3)
    at.work(20, "other", partition=1, context="c")
    at.work(5, partition=1, first=100)
    found = verified(at)
    assert found.equal
    assert (found.feedbacks, found.rows) == (45, 5)
    assert [one.position for one in found.partitions] == [19, 24]
    assert found.partitions[0].checkpoints == 7


def test_a_deployment_of_which_nothing_is_known_is_equal():
    assert verified(Deployment()).equal


def test_a_flipped_last_bit_in_the_newest_row_is_found_with_its_feedback(at):
    at.work(12)
    log = at.logs.topics[CATALOGUE.selection_changelog, 0]
    place = len(log) - 2
    log[place] = dataclasses.replace(log[place], value=encode(flipped(at.rows["app", None, 0])))
    found = verified(at)
    (parting,) = found.partings
    assert not found.equal
    assert (parting.application, parting.context, parting.partition) == ("app", None, 0)
    assert (parting.last_equal, parting.first_different, parting.feedbacks) == (10, 11, 1)
    (record,) = parting.between
    assert (record.topic, record.partition, record.offset, record.query_id) == ("clipper.feedback", 0, 11, "app-11")
    assert parting.table != parting.logs
    assert parting.table.applied == parting.logs.applied == 12


def test_the_first_row_that_differs_is_named_when_a_learner_went_on_from_it(at):
    at.work(8)
    at.write(("app", None), flipped(msgspec.structs.replace(at.rows["app", None, 0], offset=8)))
    at.rows["", None, 0] = msgspec.structs.replace(at.rows["", None, 0], offset=8)
    at.ask("app-lost")
    at.tell("app-lost")
    at.work(10, first=20)
    (parting,) = verified(at).partings
    assert (parting.last_equal, parting.first_different) == (7, 9)
    assert [one.query_id for one in parting.between] == ["app-lost", "app-20"]


def test_of_several_feedbacks_in_a_step_all_are_named(at):
    at.work(6)
    at.ask("x", context="c")
    at.tell("x")
    for number in (1, 2):
        at.ask(f"y{number}")
        at.tell(f"y{number}")
    at.learn()
    at.write(("app", None), flipped(msgspec.structs.replace(at.rows["app", None, 0], offset=9)))
    (parting,) = verified(at).partings
    assert parting.last_equal == 8
    assert (parting.feedbacks, parting.between) == (0, [])
    assert parting.first_different == 9


def test_a_row_of_which_no_feedback_tells_is_found(at):
    at.work(4)
    at.write(("app", "nobody"), at.rows["app", None, 0])
    (parting,) = verified(at).partings
    assert (parting.context, parting.logs, parting.feedbacks) == ("nobody", None, 0)


def test_a_row_under_the_key_of_another_partition_is_found(at):
    at.work(4)
    row = encode(at.rows["app", None, 0])
    at.logs.append(CATALOGUE.selection_changelog, row, 0, encode(RowKey("app", None, 1)))
    assert [one.partition for one in verified(at).partings] == [1]


def test_a_row_that_is_missing_is_found(at):
    at.work(4)
    log = at.logs.topics[CATALOGUE.selection_changelog, 0]
    at.logs.topics[CATALOGUE.selection_changelog, 0] = [one for one in log if one.key != encode(RowKey("app", None, 0))]
    (parting,) = verified(at).partings
    assert parting.table is None
    assert parting.feedbacks == 4


def test_an_update_that_was_lost_is_found(at):
    at.work(4)
    log = at.logs.topics[CATALOGUE.selection_changelog, 0]
    del log[-2]
    (parting,) = verified(at).partings
    assert (parting.last_equal, parting.logs.offset, parting.table.offset) == (2, 3, 2)
    assert [one.query_id for one in parting.between] == ["app-3"]


def test_a_position_beyond_the_log_is_found(at):
    at.work(4)
    at.logs.topics[CATALOGUE.feedback, 0].pop()
    found = verified(at)
    assert {(one.application, one.first_different) for one in found.partings} == {("", 3), ("app", 3)}


def test_feedback_that_was_not_learned_yet_is_no_difference(at):
    at.work(4)
    at.ask("later")
    at.tell("later")
    found = verified(at)
    assert found.equal
    assert found.partitions[0].behind == 1


def test_rows_without_their_position_are_compared_where_they_are(at):
    at.work(4)
    at.ask("last")
    at.tell("last")
    at.learn()
    log = at.logs.topics[CATALOGUE.selection_changelog, 0]
    log.pop()
    assert verified(at).equal
    log[-1] = dataclasses.replace(log[-1], value=encode(flipped(at.rows["app", None, 0])))
    assert [one.query_id for one in verified(at).partings[0].between] == ["last"]


def test_an_older_row_behind_a_newer_one_is_found_because_compaction_keeps_it(at):
    at.work(4)
    log = at.logs.topics[CATALOGUE.selection_changelog, 0]
    at.logs.append(CATALOGUE.selection_changelog, log[0].value, 0, log[0].key)
    assert not verified(at).equal


def test_a_row_that_was_wrong_once_and_is_right_now_is_no_difference(at):
    at.work(8)
    log = at.logs.topics[CATALOGUE.selection_changelog, 0]
    log[5] = dataclasses.replace(log[5], value=encode(flipped(msgspec.msgpack.decode(log[5].value, type=SelectionRow))))
    assert verified(at).equal


def test_repetitions_orphans_and_unreadable_feedback_change_nothing(at):
    at.work(4)
    at.tell("app-1", 3)
    at.tell("nobody")
    at.learn()
    found = verified(at)
    assert found.equal
    assert found.feedbacks == 6


def test_feedback_is_an_orphan_or_not_by_the_times_of_the_logs_alone(at):
    """Dead letters were believed: so what was refused by mistake was called equal."""
    at.work(2)
    at.tell("early")
    at.ask("early")
    at.learn()
    assert at.rows["app", None, 0].applied == 3
    at.tell("too early")
    at.learn()
    at.ask("too early")
    at.tell("app-0")
    at.ask("late")
    at.logs.now_ms += LATER_MS
    at.tell("late")
    at.learn()
    assert at.rows["app", None, 0].applied == 3
    at.logs.topics.pop((CATALOGUE.dead_letters, 0))
    assert verified(at).equal


def test_only_the_application_that_is_asked_about_is_compared():
    at = Deployment(manifest(), manifest("other"))
    at.work(4)
    at.work(4, "other")
    at.write(("other", "x"), at.rows["other", None, 0])
    assert verified(at, application="app").equal
    assert not verified(at, application="other").equal


# --- restored states ------------------------------------------------------------------------------------------------
def test_a_restored_state_is_part_of_the_log():
    at = Deployment(manifest(), manifest("other"))
    at.work(6, context="c")
    at.work(6)
    at.work(3, "other")
    at.restore("app", SAVED)
    at.learn()
    at.learn(1)
    at.work(5, first=50, every=2)
    found = verified(at)
    assert found.equal
    assert at.rows["app", "c", 0].totals == []


def test_a_marker_that_a_learner_passed_over_is_named(at):
    at.work(6)
    at.restore("app", SAVED)
    at.write(("", None), msgspec.structs.replace(at.rows["", None, 0], offset=6))
    found = verified(at)
    parting = next(one for one in found.partings if one.application == "app")
    assert [one.query_id for one in parting.between] == [None]
    assert next(one for one in found.partings if one.application == "").context == "app"


# --- logs of which the beginning is gone ----------------------------------------------------------------------------
def test_a_log_without_its_beginning_is_verified_from_the_first_row_on():
    at = aged(Deployment(manifest()), 10, 20)
    found = verified(at)
    assert found.equal
    one = found.partitions[0]
    assert one.since == 10
    assert one.feedbacks == 20
    assert one.unproven == 0


def test_a_wrong_row_is_found_behind_a_beginning_that_was_deleted():
    at = aged(Deployment(manifest()), 10, 20)
    at.write(("app", None), flipped(msgspec.structs.replace(at.rows["app", None, 0], offset=30)))
    (parting,) = verified(at).partings
    assert parting.last_equal == 29


def test_a_row_begins_behind_the_step_in_which_its_first_certain_feedback_is(at):
    at.work(6)
    for number in range(8):
        at.logs.now_ms += LATER_MS if number == 3 else 0
        at.ask(f"x{number}")
        at.tell(f"x{number}", number % 2)
    at.learn()
    at.work(4, first=50)
    for topic in (CATALOGUE.predictions, CATALOGUE.feedback):
        at.logs.delete_before(topic, 0, 4)
    found = verified(at)
    assert found.equal
    assert found.partitions[0].since == 9


def test_a_row_whose_feedback_was_deleted_is_called_unproven(at):
    at.work(5, context="old")
    found = verified(aged(at, 10, 3))
    assert found.equal
    assert found.partitions[0].unproven == 1


def test_a_marker_begins_the_rows_of_its_application():
    at = Deployment(manifest(), manifest("other"))
    at.work(6)
    at.logs.now_ms += LATER_MS
    at.work(2, "other", first=60)
    at.restore("app", SAVED)
    at.learn()
    at.work(6, first=100)
    at.logs.delete_before(CATALOGUE.predictions, 0, 4)
    at.logs.delete_before(CATALOGUE.feedback, 0, 4)
    at.logs.compact(CATALOGUE.selection_changelog, 0, dirty=4)
    found = verified(at)
    assert found.equal
    assert found.partitions[0].unproven == 1, "that of the other application"
    at.write(("app", None), flipped(at.rows["app", None, 0]))
    log = at.logs.topics[CATALOGUE.selection_changelog, 0]
    log[:] = [one for one in log if one.key != encode(RowKey("app", None, 0))] + log[-1:]
    assert [one.application for one in verified(at).partings] == ["app"]


def test_nothing_is_verified_when_all_feedback_was_deleted(at):
    at.work(5)
    at.logs.delete_before(CATALOGUE.feedback, 0, 5)
    found = verified(at)
    assert found.equal
    assert found.partitions[0].unproven == 2


def test_an_id_that_is_used_again_after_the_horizon_is_another_decision(at):
    at.work(3)
    at.logs.now_ms += LATER_MS
    at.ask("app-1", outputs=[("a:1", 7), ("b:1", 8)])
    at.tell("app-1", 8)
    at.learn()
    assert at.rows["app", None, 0].applied == 4
    assert verified(at).equal


def test_the_oracle_of_the_tests_agrees():
    at = Deployment(manifest(), manifest("other"))
    at.work(20, every=3)
    at.work(7, "other", partition=1, context="c")
    expected = oracle.fold(
        at.logs.read_all(CATALOGUE.predictions),
        sorted(at.logs.read_all(CATALOGUE.feedback), key=lambda one: (one.partition, one.offset)),
        {"app": {}, "other": {}},
    )
    table = oracle.table(at.logs.read_all(CATALOGUE.selection_changelog))
    assert {key: row.bits for key, row in table.items()} == {key: row.bits for key, row in expected.items()}
    assert verified(at).equal
