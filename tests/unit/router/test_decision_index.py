"""The index of decisions: the first of a query stays, disk is bounded, and nothing half deleted is opened again."""

import os
import shutil

import damage
import msgspec
import pytest

from clipper_agents.router.decision_index import DecisionLookup, PartitionIndex, log_index
from clipper_agents.streaming.databases import DatabaseCorrupt
from clipper_topics.feedback import EARLY_FEEDBACK_MS
from clipper_topics.logged_records import LoggedRecord, audit_key

HOUR_S = 3600.0
IDS = [f"q{number}" for number in range(8)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "0"


@pytest.fixture
def opened(folder):
    """Opens an index, and closes those opened before."""
    made = []

    def open_one(place=folder):
        for before in made:
            before.close()
        made.append(PartitionIndex(place, HOUR_S))
        return made[-1]

    yield open_one
    made[-1].close()


@pytest.fixture
def decisions(opened):
    return opened()


def value(offset, text="", application="app", at_ms=0):
    said = {"query_id": "q", "application": application, "output": text, "queried_at_ms": at_ms}
    return LoggedRecord(offset, msgspec.json.encode(said), msgpack=False)


def index(decisions, at_hours, **offsets):
    """Index decisions under these ids, at these offsets, in one step."""
    records = [(query_id, value(offset)) for query_id, offset in offsets.items()]
    decisions.index(records, max(offsets.values()), at_hours * HOUR_S)


def found(decisions, *ids, application=None, at_ms=0):
    return decisions.about([(query_id, application, at_ms) for query_id in ids])


def offsets(decisions, *ids, application=None):
    return [one and one.offset for one in found(decisions, *ids, application=application)]


def databases(folder):
    return sorted(path.name for path in folder.iterdir())


def test_decisions_are_found_by_query_id(decisions):
    packed, audited = LoggedRecord(1, b"\x80", msgpack=True), LoggedRecord(2, b"two", msgpack=False, audited=True)
    decisions.index([("q1", value(0, "one")), ("q2", packed)], 1, HOUR_S)
    assert found(decisions, "unknown", "q1") == [None, value(0, "one")]
    assert (decisions.find(["q2", "unknown"]), decisions.last_offset) == ([packed, None], 1)
    decisions.index_new([("q3", 2, b"two", False, True), ("q4", 1, b"\x80", True, False)], 5, HOUR_S)
    assert (decisions.find(["q3", "q4"]), decisions.last_offset) == ([audited, packed], 5)


def test_a_query_with_the_id_of_one_asked_long_before_is_another_query(opened, decisions):
    """Whoever restored its state after the horizon decided anew, and who had kept it knew only the old decision."""
    long_ms = int(HOUR_S) * 1000 + EARLY_FEEDBACK_MS
    early, later = value(3, "first"), value(5, "anew", at_ms=long_ms + 1)
    same, again = (value(offset, "again", at_ms=at_ms) for offset, at_ms in ((4, long_ms), (6, long_ms + 2)))
    decisions.index([("q", early), ("q", same), ("q", later), ("q", again)], 6, 0.0)
    decisions.index([("q", value(7, "again", at_ms=long_ms + 3)), ("r", value(8))], 8, 2.5 * HOUR_S)
    reopened = opened()
    assert found(reopened, "q", at_ms=HOUR_S * 1000) == [early]
    assert found(reopened, "q", at_ms=HOUR_S * 1000 + 1) == [later], "feedback that came before its query"
    assert found(reopened, "q", at_ms=2 * long_ms) == [None]
    decided = [reopened.decided([("q", "app", at_ms)]) for at_ms in (long_ms, long_ms + 1, 3 * long_ms)]
    assert decided == [[(early, True)], [(later, True)], [(early, False)]]


def test_the_decisions_of_two_applications_under_one_id_are_two(opened, decisions):
    first, second, third = value(3), value(4, application="other"), value(7, application="third")
    repeated = ("q", value(6, "again", "other"))
    decisions.index([("q", first), ("q", second), ("q", value(5, "again")), repeated], 6, HOUR_S)
    decisions.index([repeated], 8, 2.5 * HOUR_S)
    assert decisions.decided([("q", "third", 0)]) == [(first, False)], "the id is shared"
    decisions.index([("q", third)], 9, 2.5 * HOUR_S)
    reopened, names = opened(), ("app", "other", "third", None)
    assert [found(reopened, "q", application=name) for name in names] == [[first], [second], [third], [first]]


def test_when_the_first_decision_under_an_id_is_dropped_the_next_one_is_the_first(folder, decisions):
    index(decisions, 10.5, q=0)
    decisions.index([("q", value(1, application="other"))], 1, 11.5 * HOUR_S)
    for before_hours, first in ((10.9, 0), (11.1, 1)):
        decisions.forget_before(before_hours * HOUR_S)
        assert [offsets(decisions, "q", application=name) for name in (None, "other")] == [[first], [1]]
    assert databases(folder) == ["11"]


def test_an_id_of_any_characters_meets_no_other_and_no_applied_feedback(decisions):
    ids = ["q\0a", "q\u00ffa", "\0offset", "dq", ""]
    others = [("q", value(5)), ("q", value(6, application="a"))]
    decisions.index([*((one, value(number)) for number, one in enumerate(ids)), *others], 6, 0)
    for offset in (3, 4):  # of two the first stays
        decisions.note_applied_feedback([(0, offset)], offset, HOUR_S)
    assert (offsets(decisions, *ids, "q", "qa"), decisions.applied_feedback([0])) == ([*range(6), None], [3])


def crashed(folder, cut=None):
    """What a process finds that starts after another was killed: the files as they are, and nothing from its memory."""
    copy = folder.parent / "after the crash"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("LOCK"))
    if cut is not None:
        os.truncate(copy / "10" / cut[0], cut[1])
    return copy


def test_a_process_that_is_killed_loses_nothing_of_its_index(folder, opened, decisions):
    """It read everything again that it had not flushed, eight megabytes a partition, before it answered."""
    index(decisions, 10.5, q1=0)
    decisions.note_applied_feedback([(0, 3)], 3, 10.5 * HOUR_S)
    again = opened(crashed(folder))
    assert (offsets(again, "q1"), again.applied_feedback([0])) == ([0], [3])
    assert (again.last_offset, again.applied_feedback_upto) == (0, 3)


def test_a_database_that_a_crash_left_half_deleted_is_removed(folder, opened, decisions):
    index(decisions, 10.5, q=0)
    (folder / "8.dropped").mkdir()
    (folder / "8.dropped" / "000012.sst").write_bytes(b"half")
    assert (offsets(opened(), "q"), databases(folder)) == ([0], ["10"])


@pytest.mark.parametrize("crashes", [False, True])
def test_an_index_that_lacks_what_is_needed_again_is_read_whole(folder, opened, decisions, crashes):
    """A directory that was kept answered queries anew that were read again later than the horizon."""
    decisions.begin(8.2 * HOUR_S * 1000, 8.2 * HOUR_S * 1000)
    index(decisions, 8.5, q=0)
    index(decisions, 10.5, r=1)
    decisions.forget_before(9.1 * HOUR_S)
    again = opened(crashed(folder)) if crashes else opened()
    again.begin(9.0 * HOUR_S * 1000, 0.0)
    assert (again.last_offset, again.since_ms) == (1, 9.0 * HOUR_S * 1000), "all from then on is there"
    again.begin(8.9 * HOUR_S * 1000, 7.0 * HOUR_S * 1000)
    assert (again.last_offset, again.since_ms, offsets(again, "r")) == (-1, 7.0 * HOUR_S * 1000, [None])


def test_an_index_of_another_log_is_forgotten(decisions):
    index(decisions, 1, q=100)
    decisions.note_applied_feedback([(100, 90)], 90, HOUR_S)
    decisions.clear()
    assert (offsets(decisions, "q"), decisions.applied_feedback([100])) == ([None], [None])
    assert (decisions.last_offset, decisions.applied_feedback_upto) == (-1, -1)
    index(decisions, 1, q=0)
    decisions.index([], 7, HOUR_S)  # records that hold no decision count as read, and so does feedback
    decisions.note_applied_feedback([], 9, HOUR_S)
    assert (offsets(decisions, "q"), decisions.last_offset, decisions.applied_feedback_upto) == ([0], 7, 9)


def test_partitions_that_are_owned_no_more_are_closed_and_can_be_opened_again(tmp_path):
    logs = log_index(tmp_path, HOUR_S)
    for partition, offset in ((0, 0), (1, 5)):
        index(logs[partition], 1, q=offset)
    kept = logs[1]
    logs.keep_only([1])
    assert logs[1] is kept
    assert [offsets(logs[partition], "q") for partition in (0, 1)] == [[0], [5]]
    logs.keep_only([])


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_after_a_power_cut_what_is_missing_is_not_said_to_be_there(folder, opened, decisions, kept):
    """The log is read again from where the index says that it ends."""
    for offset, query_id in enumerate(IDS):
        index(decisions, 10.5, **{query_id: offset})
    (log,) = (folder / "10").glob("*.log")
    again = opened(crashed(folder, cut=(log.name, int(log.stat().st_size * kept))))
    assert again.last_offset < 7
    assert offsets(again, *IDS) == [offset if offset <= again.last_offset else None for offset in range(8)]


def test_all_of_one_database_is_on_disk_before_the_next_one_is_begun(folder, opened, decisions):
    """Otherwise the offset in the newer one would vouch for decisions that the older one has lost."""
    index(decisions, 10.5, q1=0)
    index(decisions, 11.5, q2=1)
    for log in (folder / "10").glob("*.log"):
        os.truncate(log, 0)
    again = opened(crashed(folder))
    assert (offsets(again, "q1", "q2"), again.last_offset) == ([0, 1], 1)


class CountedIndex:
    """Notes what is looked up in an index."""

    def __init__(self, index):
        self._index, self.asked = index, []

    def __getattr__(self, name):
        return lambda keys: (self.asked.extend(keys), getattr(self._index, name)(keys))[1]


def test_each_decision_and_audit_is_looked_up_once_and_what_was_missing_once_more_after_a_wait(tmp_path, decisions):
    audits = PartitionIndex(tmp_path / "audits", HOUR_S)
    told, late = value(0)._replace(audited=True), value(1)._replace(audited=True)
    first, second, never = ((query_id, None, 0.0) for query_id in ("q1", "q2", "q3"))
    keys = [audit_key(query_id, -1) for query_id in ("q1", "q2")]
    decisions.index([("q1", told)], 0, HOUR_S)
    counted = CountedIndex(decisions), CountedIndex(audits)
    lookup = DecisionLookup(*counted, [first, second, never, first])
    decisions.index([("q2", late)], 1, HOUR_S)
    audits.index([(keys[0], value(0))], 0, HOUR_S)
    lookup.refresh()
    lookup.refresh()
    assert counted[0].asked == [first, second, never, second, never, never]
    assert counted[1].asked == [keys[0], *keys, keys[1]]
    assert [lookup.is_complete(one) for one in (first, second, never)] == [True, False, False]
    audits.close()


@pytest.fixture
def two_ages(folder, decisions):
    """The offsets stand in the newer one."""
    index(decisions, 10.5, q0=0)
    index(decisions, 11.5, q2=2)
    decisions.note_applied_feedback([(2, 9)], 9, 11.5 * HOUR_S)
    decisions.close()
    return folder


@pytest.mark.parametrize("age", ["10", "11"])
def test_a_partition_of_which_one_database_is_corrupt_is_indexed_anew(two_ages, opened, age):
    """Else the offset in one database would vouch for what another has lost."""
    damage.cut(two_ages / age / "CURRENT", 0)
    again = opened()
    assert (offsets(again, "q0", "q2"), again.last_offset, again.applied_feedback_upto) == ([None] * 2, -1, -1)
    index(again, 11.5, q0=0)
    assert offsets(again, "q0") == [0]
    assert databases(two_ages.parent) == ["0"]


def test_an_unreadable_decision_ends_the_process_and_the_next_indexes_anew(folder, opened, decisions):
    ids = [f"q{number:03}" for number in range(100)]
    decisions.index([(one, value(number, "v" * 1000)) for number, one in enumerate(ids)], 99, 10.5 * HOUR_S)
    decisions.close()
    damage.flip(damage.oldest(folder / "10", "*.sst"), 0.5)
    again = opened()
    assert again.last_offset == 99
    with pytest.raises(DatabaseCorrupt, match="built anew"):
        found(again, *ids)
    with pytest.raises(DatabaseCorrupt):
        again.index_new([("new", 100, b"{}", False, False)], 100, 12.5 * HOUR_S)  # no database beside the corrupt one
    again.close()
    assert not folder.exists()
    assert opened().last_offset == -1


@pytest.mark.parametrize("name", ["foo", "-1", "007", "lost+found", "٣"])
def test_a_foreign_file_is_left_alone(two_ages, opened, name, caplog):
    (two_ages / name).write_text("somebody's")
    assert offsets(opened(), "q2") == [2]
    assert (two_ages / name).read_text() == "somebody's"
    assert [line for line in caplog.messages if f"names={name}" in line]


def test_a_file_in_place_of_the_folder_or_of_a_database_is_set_aside(folder, opened):
    for place in (folder, folder / "12"):
        place.write_bytes(b"")
        assert opened().last_offset == -1
