"""The index of decisions: the first of a query stays, disk is bounded, and nothing half deleted is opened again."""

import os
import shutil

import damage
import msgspec
import pytest

from clipper_agents.router.decision_index import LogIndex, PartitionIndex
from clipper_agents.streaming.databases import DatabaseCorrupt, open_anew
from clipper_agents.streaming.rocksdb_options import options
from clipper_topics.feedback import EARLY_FEEDBACK_MS
from clipper_topics.logged_records import LoggedRecord

HOUR_S = 3600.0


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "0"


@pytest.fixture
def decisions(folder):
    found = PartitionIndex(folder, HOUR_S)
    yield found
    found.close()


def value(offset, text="", application="app", at_ms=0):
    said = {"query_id": "q", "application": application, "output": text, "queried_at_ms": at_ms}
    return LoggedRecord(offset, msgspec.json.encode(said), msgpack=False)


def found(index, *ids, application=None, at_ms=0):
    return index.about([(query_id, application, at_ms) for query_id in ids])


def test_decisions_are_found_by_query_id(decisions):
    decisions.index([("q1", value(0, "one")), ("q2", LoggedRecord(1, b"\x80", msgpack=True))], 1, HOUR_S)
    assert found(decisions, "unknown", "q1") == [None, value(0, "one")]
    assert decisions.find(["q2", "unknown"]) == [LoggedRecord(1, b"\x80", msgpack=True), None]
    assert decisions.last_offset == 1


def test_the_first_of_two_decisions_about_a_query_stays(decisions):
    decisions.index([("q", value(3, "first")), ("q", value(4, "second"))], 4, HOUR_S)
    decisions.index([("q", value(5, "third"))], 5, HOUR_S)
    decisions.index([("q", value(6, "an hour later"))], 6, 2.5 * HOUR_S)
    assert found(decisions, "q") == [value(3, "first")]


def test_a_query_with_the_id_of_one_asked_long_before_is_another_query(folder, decisions):
    """Whoever restored its state after the horizon decided anew, and who had kept it knew only the old decision."""
    long_ms = int(HOUR_S) * 1000 + EARLY_FEEDBACK_MS
    early, same, later = value(3, "first"), value(4, "again", at_ms=long_ms), value(5, "anew", at_ms=long_ms + 1)
    decisions.index([("q", early), ("q", same), ("q", later), ("q", value(6, "again", at_ms=long_ms + 2))], 6, 0.0)
    decisions.index([("q", value(7, "again", at_ms=long_ms + 3)), ("r", value(8))], 8, 2.5 * HOUR_S)
    decisions.close()
    again = PartitionIndex(folder, HOUR_S)
    assert found(again, "q", at_ms=HOUR_S * 1000) == [early]
    assert found(again, "q", at_ms=HOUR_S * 1000 + 1) == [later], "feedback that came before its query"
    assert found(again, "q", at_ms=2 * long_ms) == [None]
    assert [again.decided([("q", "app", at_ms)]) for at_ms in (long_ms, long_ms + 1, 3 * long_ms)] == [
        [(early, True)],
        [(later, True)],
        [(early, False)],
    ]
    again.close()


def test_the_decisions_of_two_applications_under_one_id_are_two(folder, decisions):
    first, second, third = value(3), value(4, application="other"), value(7, application="third")
    decisions.index(
        [("q", first), ("q", second), ("q", value(5, "again")), ("q", value(6, "again", "other"))], 6, HOUR_S
    )
    decisions.index([("q", value(8, "again", "other"))], 8, 2.5 * HOUR_S)
    assert decisions.decided([("q", "third", 0)]) == [(first, False)], "the id is shared"
    decisions.index([("q", third)], 9, 2.5 * HOUR_S)
    decisions.close()
    again = PartitionIndex(folder, HOUR_S)
    names = ("app", "other", "third", None)
    assert [found(again, "q", application=name) for name in names] == [[first], [second], [third], [first]]
    again.close()


def test_when_the_first_decision_under_an_id_is_dropped_the_next_one_is_the_first(decisions):
    decisions.index([("q", value(0))], 0, 10.5 * HOUR_S)
    decisions.index([("q", value(1, application="other"))], 1, 11.5 * HOUR_S)
    assert found(decisions, "q") == [value(0)]
    decisions.forget_before(12.1 * HOUR_S)
    assert [found(decisions, "q", application=name) for name in (None, "other")] == [
        [value(1, application="other")]
    ] * 2


def test_an_id_with_any_character_is_not_that_of_another_application(decisions):
    decisions.index(
        [("q", value(0)), ("q", value(1, application="a")), ("q\0a", value(2)), ("q\u00ffa", value(3))], 3, 0
    )
    assert found(decisions, "q\0a", "q\u00ffa", "qa") == [value(2), value(3), None]


def test_the_first_of_two_applied_feedbacks_of_a_query_stays(decisions):
    decisions.note_applied_feedback([(7, 3), (7, 4)], 4, HOUR_S)
    decisions.note_applied_feedback([(7, 5)], 5, 2.5 * HOUR_S)
    assert decisions.applied_feedback([7, 8]) == [3, None]
    assert decisions.applied_feedback_upto == 5


def test_records_that_hold_no_decision_count_as_read(decisions):
    decisions.index([], 7, HOUR_S)
    decisions.note_applied_feedback([], 9, HOUR_S)
    assert (decisions.last_offset, decisions.applied_feedback_upto) == (7, 9)


def test_a_query_and_an_applied_feedback_of_any_name_do_not_meet(decisions):
    decisions.index([("\0offset", value(0)), ("dq", value(1)), ("", value(2))], 2, HOUR_S)
    decisions.note_applied_feedback([(0, 0)], 0, HOUR_S)
    assert found(decisions, "\0offset", "dq", "", "q") == [value(0), value(1), value(2), None]


def test_everything_is_there_after_a_restart(folder, decisions):
    decisions.index([("q1", value(0))], 0, HOUR_S)
    decisions.index([("q2", value(1))], 1, 2.5 * HOUR_S)
    decisions.note_applied_feedback([(0, 5)], 6, 2.5 * HOUR_S)
    decisions.close()
    again = PartitionIndex(folder, HOUR_S)
    assert (found(again, "q1", "q2"), again.applied_feedback([0])) == ([value(0), value(1)], [5])
    assert (again.last_offset, again.applied_feedback_upto) == (1, 6)
    again.close()


def test_decisions_are_kept_until_feedback_is_a_horizon_past_their_age(folder, decisions):
    decisions.index([("old", value(0))], 0, 10.5 * HOUR_S)
    decisions.index([("new", value(1))], 1, 11.4 * HOUR_S)
    assert found(decisions, "old", "new") == [value(0), value(1)]
    decisions.index([("newest", value(2))], 2, 12.4 * HOUR_S)
    decisions.forget_before(10.9 * HOUR_S)
    assert found(decisions, "old", "new", "newest") == [value(0), value(1), value(2)]
    decisions.forget_before(11.1 * HOUR_S)
    assert found(decisions, "old", "new", "newest") == [None, value(1), value(2)]
    assert sorted(path.name for path in folder.iterdir()) == ["11", "12"]


def test_a_clock_that_goes_back_opens_no_older_age(folder, decisions):
    decisions.index([("q1", value(0))], 0, 10.5 * HOUR_S)
    decisions.index([("q2", value(1))], 1, 9.5 * HOUR_S)
    assert [path.name for path in folder.iterdir()] == ["10"]


def test_a_database_that_a_crash_left_half_deleted_is_removed(folder, decisions):
    decisions.index([("q", value(0))], 0, 10.5 * HOUR_S)
    (folder / "8.dropped").mkdir()
    (folder / "8.dropped" / "000012.sst").write_bytes(b"half")
    decisions.close()
    again = PartitionIndex(folder, HOUR_S)
    assert [path.name for path in folder.iterdir()] == ["10"]
    assert found(again, "q") == [value(0)]
    again.close()


def test_what_queries_that_were_left_may_repeat_is_kept(decisions):
    decisions.decided([("q", "app", 9 * HOUR_S * 1000)])
    without = decisions.forgettable_s(8 * HOUR_S)
    decisions.left_ms = 5 * HOUR_S * 1000
    assert decisions.forgettable_s(8 * HOUR_S) == pytest.approx(without - 3 * HOUR_S)


def test_an_index_of_another_log_is_forgotten(folder, decisions):
    decisions.index([("q", value(100))], 100, HOUR_S)
    decisions.note_applied_feedback([(100, 90)], 90, HOUR_S)
    decisions.clear()
    assert (found(decisions, "q"), decisions.applied_feedback([100])) == ([None], [None])
    assert (decisions.last_offset, decisions.applied_feedback_upto) == (-1, -1)
    decisions.index([("q", value(0))], 0, HOUR_S)
    assert found(decisions, "q") == [value(0)]


def test_partitions_that_are_owned_no_more_are_closed_and_can_be_opened_again(tmp_path):
    decisions = LogIndex(tmp_path, HOUR_S)
    decisions.of(0).index([("q", value(0))], 0, HOUR_S)
    decisions.of(1).index([("q", value(5))], 5, HOUR_S)
    decisions.keep_only([1])
    assert found(decisions.of(1), "q") == [value(5)]
    assert found(decisions.of(0), "q") == [value(0)]
    decisions.keep_only([])


def crashed(folder, cut=None):
    """What a process finds that starts after another was killed: the files as they are, and nothing from its memory."""
    copy = folder.parent / "after the crash"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("LOCK"))
    if cut is not None:
        os.truncate(copy / "10" / cut[0], cut[1])
    return PartitionIndex(copy, HOUR_S)


def test_a_process_that_is_killed_loses_nothing_of_its_index(folder, decisions):
    """It read everything again that it had not flushed, eight megabytes a partition, before it answered."""
    decisions.index([("q1", value(0))], 0, 10.5 * HOUR_S)
    decisions.note_applied_feedback([(0, 3)], 3, 10.5 * HOUR_S)
    again = crashed(folder)
    assert (found(again, "q1"), again.last_offset) == ([value(0)], 0)
    assert (again.applied_feedback([0]), again.applied_feedback_upto) == ([3], 3)
    again.close()


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_after_a_power_cut_what_is_missing_is_not_said_to_be_there(folder, decisions, kept):
    """The log is read again from where the index says that it ends."""
    for number in range(8):
        decisions.index([(f"q{number}", value(number))], number, 10.5 * HOUR_S)
    (log,) = (folder / "10").glob("*.log")
    again = crashed(folder, cut=(log.name, int(log.stat().st_size * kept)))
    ids = [f"q{number}" for number in range(8)]
    assert again.last_offset < 7
    assert found(again, *ids) == [value(number) if number <= again.last_offset else None for number in range(8)]
    again.close()


def test_all_of_one_database_is_on_disk_before_the_next_one_is_begun(folder, decisions):
    """Otherwise the offset in the newer one would vouch for decisions that the older one has lost."""
    decisions.index([("q1", value(0))], 0, 10.5 * HOUR_S)
    decisions.index([("q2", value(1))], 1, 11.5 * HOUR_S)
    for log in (folder / "10").glob("*.log"):
        os.truncate(log, 0)
    again = crashed(folder)
    assert (found(again, "q1", "q2"), again.last_offset) == ([value(0), value(1)], 1)
    again.close()


def test_decisions_that_are_surely_new_are_indexed_without_a_look(decisions):
    decisions.index_new([("q1", 0, b"one", False, True), ("q2", 1, b"\x80", True, False)], 5, HOUR_S)
    assert decisions.find(["q1", "q2"]) == [
        LoggedRecord(0, b"one", msgpack=False, audited=True),
        LoggedRecord(1, b"\x80", msgpack=True),
    ]
    assert decisions.last_offset == 5


@pytest.fixture
def two_ages(folder, decisions):
    """Both ages on disk, the older in two table files; the offsets stand in the newer one."""
    for number in range(2):
        decisions.index([(f"q{number}", value(number, "v" * 1000))], number, 10.5 * HOUR_S)
        decisions._ages[10].flush()
    decisions.index([("q2", value(2))], 2, 11.5 * HOUR_S)
    decisions.note_applied_feedback([(2, 9)], 9, 11.5 * HOUR_S)
    decisions.close()
    return folder


@pytest.mark.parametrize("age", ["10", "11"])
@pytest.mark.parametrize("harm", sorted({*damage.ON_TABLES} - {"bytes flipped in a table file"}))
def test_a_partition_of_which_one_database_is_corrupt_is_indexed_anew(two_ages, age, harm):
    """Else the offset in one database would vouch for what another has lost."""
    for place in (two_ages / "10", two_ages / "11"):
        open_anew(place, options).close()  # another table file, of what was logged nowhere
    again = PartitionIndex(two_ages, HOUR_S)
    again._ages[int(age)].put(b"more", b"x" * 1000)
    again._ages[int(age)].flush()
    again.close()
    damage.ON_TABLES[harm](two_ages / age)
    again = PartitionIndex(two_ages, HOUR_S)
    assert found(again, "q0", "q1", "q2") == [None] * 3
    assert (again.last_offset, again.applied_feedback_upto) == (-1, -1)
    again.index([("q0", value(0))], 0, 11.5 * HOUR_S)
    assert found(again, "q0") == [value(0)]
    again.close()
    assert [path.name for path in two_ages.parent.iterdir()] == ["0"]


def test_an_unreadable_decision_ends_the_process_and_the_next_indexes_anew(folder, decisions):
    ids = [f"q{number:03}" for number in range(100)]
    decisions.index([(one, value(number, "v" * 1000)) for number, one in enumerate(ids)], 99, 10.5 * HOUR_S)
    decisions.close()
    damage.flip(damage.oldest(folder / "10", "*.sst"), 0.5)
    again = PartitionIndex(folder, HOUR_S)
    assert again.last_offset == 99
    with pytest.raises(DatabaseCorrupt, match="built anew"):
        found(again, *ids)
    with pytest.raises(DatabaseCorrupt):
        again.index_new([("new", 100, b"{}", False, False)], 100, 12.5 * HOUR_S)  # no database beside the corrupt one
    again.close()
    assert not folder.exists()
    again = PartitionIndex(folder, HOUR_S)
    assert again.last_offset == -1
    again.close()


@pytest.mark.parametrize("name", ["foo", "-1", "007", "lost+found", "٣"])
def test_a_foreign_file_is_left_alone(two_ages, name, caplog):
    (two_ages / name).write_text("somebody's")
    again = PartitionIndex(two_ages, HOUR_S)
    assert found(again, "q2") == [value(2)]
    again.close()
    assert (two_ages / name).read_text() == "somebody's"
    assert [line for line in caplog.messages if f"names={name}" in line]


def test_a_file_in_place_of_the_folder_or_of_a_database_is_set_aside(tmp_path):
    (tmp_path / "0").write_bytes(b"")
    PartitionIndex(tmp_path / "0", HOUR_S).close()
    (tmp_path / "0" / "12").write_bytes(b"")
    again = PartitionIndex(tmp_path / "0", HOUR_S)
    assert again.last_offset == -1
    again.close()
