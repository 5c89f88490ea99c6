"""A database gives what was written or is set aside, whatever happened to its files: never something else."""

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import damage
import pytest
import rocksdict

from clipper_agents.streaming.databases import (
    ALL_BLOCK_CACHES_BYTES,
    FORMAT,
    FORMAT_FILE,
    Database,
    DatabaseCorrupt,
    open_anew,
)
from clipper_agents.streaming.storage import StorageFailed, StorageRefused

ROUNDS, ROWS = 3, 1000
WRITTEN = [{b"%d row %05d" % (number, row): b"value %d" % row * 20 for row in range(ROWS)} for number in range(ROUNDS)]
PREFIXES = [{key: value for some in WRITTEN[:count] for key, value in some.items()} for count in range(ROUNDS + 1)]
"""What the database may say: the first rounds of what was written."""
NOTHING, ENTRY = [{}], {b"a": b"b"}


def written(database, rows):
    database.write(rows.items())
    return database


def content(database):
    found = dict(database.items())
    database.close()
    return found


@pytest.fixture
def folder(tmp_path):
    """What a process finds that starts after another was killed: two table files, and a write-ahead log."""
    database = Database(tmp_path / "lived")
    for number, rows in enumerate(WRITTEN):
        written(database, rows)
        if number < ROUNDS - 1:
            database.flush()
    shutil.copytree(database.path, tmp_path / "0", ignore=shutil.ignore_patterns("LOCK"))
    database.close()
    return tmp_path / "0"


HARMS = damage.ON_TABLES | damage.ON_LOGS | damage.HARMLESS
HARMS["a file in place of it"] = lambda folder: shutil.rmtree(folder) or folder.write_bytes(b"")
LEFT = {
    "a file in place of it": NOTHING,
    **dict.fromkeys(damage.ON_TABLES, NOTHING),
    **dict.fromkeys(damage.ON_LOGS, PREFIXES),
    **dict.fromkeys(damage.HARMLESS, PREFIXES[-1:]),
}
"""What may be left after some damage: nothing; all but the newest writes; everything."""


@pytest.mark.parametrize("harm", LEFT)
def test_a_database_is_set_aside_and_begun_anew_where_it_is_corrupt(folder, harm, caplog):
    HARMS[harm](folder)
    assert content(open_anew(folder)) in LEFT[harm]
    told = [f"path={folder} reason=" in line for line in caplog.messages if "corrupt, set aside" in line]
    assert harm in damage.ON_LOGS or told == [True] * (LEFT[harm] is NOTHING)
    assert not [*folder.parent.glob("*broken*")]


@pytest.mark.parametrize(
    "read",
    [
        lambda database: [database.get(key) for key in PREFIXES[-1]],
        lambda database: database.get_many([*PREFIXES[-1]]),
        lambda database: list(database.items()),
    ],
    ids=["get", "get many", "items"],
)
def test_a_block_that_turns_out_corrupt_when_it_is_read_sets_the_database_aside(folder, read):
    damage.flip(damage.oldest(folder, "*.sst"), 0.3)
    database = Database(folder)
    with pytest.raises(DatabaseCorrupt, match=r"block checksum mismatch.*built anew from the logs"):
        read(database)
    assert not folder.exists()
    for use in (lambda: database.write([(b"a", b"b")]), database.flush, lambda: database.get(b"a")):
        with pytest.raises(DatabaseCorrupt):
            use()
    database.close()
    assert content(open_anew(folder)) == {}


@pytest.mark.parametrize("logged", [True, False])
def test_a_database_gives_what_was_written_and_not_deleted(tmp_path, logged):
    database = open_anew(tmp_path / "0", logged=logged)
    database.write([(b"a", b"1"), (b"b", b"2")])
    database.write([(b"c", b"3")], [b"a"])
    assert database.get_many([b"a", b"b", b"c"]) == [None, b"2", b"3"]
    assert database.get_many([]) == []
    assert content(database) == {b"b": b"2", b"c": b"3"}


def test_all_that_vouch_for_each_other_are_set_aside_together(tmp_path):
    unit = tmp_path / "unit"
    for name in "12":
        Database(unit / name, unit).close()
    damage.cut(unit / "1" / "CURRENT", 0)
    with pytest.raises(DatabaseCorrupt, match=f"{unit} was set aside"):
        Database(unit / "1", unit)
    assert [path.name for path in tmp_path.iterdir()] == ["unit.broken"]


def test_a_database_that_is_in_use_is_not_taken_for_a_corrupt_one(tmp_path):
    database = written(Database(tmp_path / "0"), ENTRY)
    with pytest.raises(StorageFailed, match=f"{tmp_path}/0: another process uses it .*lock hold by current process"):
        open_anew(tmp_path / "0")
    assert content(database) == ENTRY


def test_a_disk_without_room_is_not_taken_for_a_corrupt_database():
    with pytest.raises(StorageFailed, match="/dev/full/0"):
        open_anew(Path("/dev/full/0"))


def test_files_that_wait_to_be_merged_are_all_known(tmp_path):
    """A merge that begins with the opening would make them look unknown."""
    unmerged = rocksdict.Options(raw_mode=True)
    unmerged.set_disable_auto_compactions(True)
    bare = rocksdict.Rdict(str(tmp_path / "0"), unmerged)
    for number in range(40):
        bare.put(b"%d" % number, b"x")
        bare.flush()
    bare.close()
    for _ in range(2):
        assert len(content(Database(tmp_path / "0"))) == 40


def test_files_are_merged_after_the_opening(tmp_path):
    """Merging is held back for the look at the files, and only for it."""
    database, count = Database(tmp_path / "0"), 0
    while len([*tmp_path.glob("0/*.sst")]) == count:
        database.write([(b"%d" % count, b"x")])
        database.flush()
        count += 1
        assert count < 1000
    assert len(content(database)) == count


@pytest.mark.parametrize("open_one", [Database, open_anew])
def test_a_database_of_a_newer_release_is_refused_and_left_as_it_is(tmp_path, open_one):
    path = tmp_path / "0"
    written(open_one(path), ENTRY).close()
    (path / FORMAT_FILE).write_text(f"{FORMAT + 1}\n")
    with pytest.raises(StorageRefused, match=f"/0 has format 2, this release knows 1: .*delete {path}"):
        open_one(path)
    (path / FORMAT_FILE).write_text(f"{FORMAT}\n")
    assert content(open_one(path)) == ENTRY


@pytest.mark.parametrize(("found", "left"), [(None, ENTRY), (b"", ENTRY), (b"\xff\xfe", {}), (b"one", {})])
def test_a_format_that_is_none_costs_the_database_at_most_and_not_the_process(tmp_path, found, left):
    """A database from before there were formats has the first."""
    file = tmp_path / "0" / FORMAT_FILE
    written(open_anew(tmp_path / "0"), ENTRY).close()
    file.unlink() if found is None else file.write_bytes(found)
    assert content(open_anew(tmp_path / "0")) == left
    assert file.read_text() == "1\n"


def test_all_databases_of_a_process_share_one_block_cache(tmp_path):
    read, other = (Database(tmp_path / name) for name in ("read", "other"))
    cache = other._open.property_int_value
    written(read, {b"%d" % number: b"x" * 100 for number in range(20_000)}).flush()
    before = cache("rocksdb.block-cache-usage")
    assert len([*read.items()]) == 20_000
    assert cache("rocksdb.block-cache-usage") > before + 1_000_000
    assert cache("rocksdb.block-cache-capacity") == ALL_BLOCK_CACHES_BYTES


def test_many_databases_with_little_in_them_write_no_files(tmp_path):
    """Index and cache of 64 partitions: together their buffers are bounded, and empty ones take next to nothing."""
    databases = [Database(tmp_path / str(number)) for number in range(128)]
    for turn in range(3):
        for database in databases:
            written(database, {b"query %d %d" % (turn, query): b"decision" * 80 for query in range(20)})
    assert not [*tmp_path.glob("*/*.sst")]


@pytest.mark.skipif(sys.platform != "linux", reason="threads have names and priorities of their own on Linux alone")
def test_files_are_written_and_merged_by_threads_of_the_lowest_priority(tmp_path):
    """A thread takes it when it has work for the first time."""
    database = Database(tmp_path / "0")
    for rows in WRITTEN:
        written(database, rows).flush()
    database._open.compact_range(None, None)
    priorities = {}
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread of another test has ended
            name = (task / "comm").read_text().strip()
            priorities.setdefault(name, set()).add(os.getpriority(os.PRIO_PROCESS, int(task.name)))
    assert 19 in priorities["rocksdb:high"]
    assert 19 in priorities["rocksdb:low"]
