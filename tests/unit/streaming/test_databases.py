"""A database gives what was written or is set aside, whatever happened to its files: never something else."""

import shutil
import time
from pathlib import Path

import damage
import pytest
import rocksdict

from clipper_agents.streaming.databases import FORMAT, FORMAT_FILE, Database, DatabaseCorrupt, open_anew
from clipper_agents.streaming.rocksdb_options import ALL_BLOCK_CACHES_BYTES, options
from clipper_agents.streaming.storage import StorageFailed, StorageRefused

ROUNDS, ROWS = 3, 1000


def round_of(number):
    return {b"%d row %05d" % (number, row): b"value %d" % row * 20 for row in range(ROWS)}


def prefixes():
    """What the database may say: the first rounds of what was written."""
    found, prefix = [{}], {}
    for number in range(ROUNDS):
        prefix = prefix | round_of(number)
        found.append(prefix)
    return found


@pytest.fixture
def folder(tmp_path):
    """What a process finds that starts after another was killed: two table files, and a write-ahead log."""
    database = Database(tmp_path / "lived", options())
    for number in range(ROUNDS):
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in round_of(number).items():
            batch.put(key, value)
        database.write(batch)
        if number < ROUNDS - 1:
            database.flush()
    shutil.copytree(database.path, tmp_path / "0", ignore=shutil.ignore_patterns("LOCK"))
    database.close()
    return tmp_path / "0"


def content(database):
    found = dict(database.items())
    database.close()
    return found


def test_without_harm_everything_is_there(folder):
    assert content(open_anew(folder, options)) == prefixes()[-1]


@pytest.mark.parametrize("harm", damage.ON_TABLES)
def test_a_corrupt_database_is_set_aside_and_begun_anew(folder, harm, caplog):
    damage.ON_TABLES[harm](folder)
    assert content(open_anew(folder, options)) == {}
    (warning,) = [line for line in caplog.messages if "corrupt, set aside" in line]
    assert f"path={folder} reason=" in warning
    assert [path.name for path in folder.parent.iterdir() if "broken" in path.name] == []


@pytest.mark.parametrize("harm", damage.ON_LOGS)
def test_a_write_ahead_log_that_is_damaged_costs_the_newest_writes_at_most(folder, harm):
    damage.ON_LOGS[harm](folder)
    assert content(open_anew(folder, options)) in prefixes()


@pytest.mark.parametrize("harm", damage.HARMLESS)
def test_what_no_entry_depends_on_costs_nothing(folder, harm):
    damage.HARMLESS[harm](folder)
    assert content(open_anew(folder, options)) == prefixes()[-1]


@pytest.mark.parametrize("read", ["get", "get many", "items"])
def test_a_block_that_turns_out_corrupt_when_it_is_read_sets_the_database_aside(folder, read):
    damage.flip(damage.oldest(folder, "*.sst"), 0.3)
    database = Database(folder, options())
    keys = [*prefixes()[-1]]
    reads = {
        "get": lambda: [database.get(key) for key in keys],
        "get many": lambda: database.get(keys),
        "items": lambda: list(database.items()),
    }
    with pytest.raises(DatabaseCorrupt, match=r"block checksum mismatch.*built anew from the logs"):
        reads[read]()
    assert not folder.exists()
    for use in (
        lambda: database.put(b"a", b"b"),
        database.flush,
        lambda: database.get(b"a"),
    ):
        with pytest.raises(DatabaseCorrupt):
            use()
    database.close()
    assert content(open_anew(folder, options)) == {}


def test_an_iteration_over_a_corrupt_block_does_not_just_end(folder):
    """It does in rocksdict: rows would be missing, and nobody would know."""
    damage.flip(damage.oldest(folder, "*.sst"), 0.3)
    bare = rocksdict.Rdict(str(folder), options())
    assert 0 < len(list(bare.items())) < ROWS
    bare.close()


def test_a_file_in_place_of_a_database_is_set_aside(tmp_path):
    (tmp_path / "0").write_bytes(b"")
    assert content(open_anew(tmp_path / "0", options)) == {}


def test_all_that_vouch_for_each_other_are_set_aside_together(tmp_path):
    Database(tmp_path / "unit" / "1", options(), tmp_path / "unit").close()
    Database(tmp_path / "unit" / "2", options(), tmp_path / "unit").close()
    damage.cut(tmp_path / "unit" / "1" / "CURRENT", 0)
    with pytest.raises(DatabaseCorrupt, match=f"{tmp_path}/unit was set aside"):
        Database(tmp_path / "unit" / "1", options(), tmp_path / "unit")
    assert [path.name for path in tmp_path.iterdir()] == ["unit.broken"]


def test_a_database_that_is_in_use_is_not_taken_for_a_corrupt_one(tmp_path):
    database = Database(tmp_path / "0", options())
    with pytest.raises(StorageFailed, match=f"{tmp_path}/0: another process uses it .*lock hold by current process"):
        open_anew(tmp_path / "0", options)
    database.put(b"a", b"b")
    assert content(database) == {b"a": b"b"}


def test_a_disk_without_room_is_not_taken_for_a_corrupt_database():
    with pytest.raises(StorageFailed, match="/dev/full/0"):
        open_anew(Path("/dev/full/0"), options)


def test_files_that_wait_to_be_merged_are_all_known(tmp_path):
    """A merge that begins with the opening would make them look unknown."""
    unmerged = options()
    unmerged.set_disable_auto_compactions(True)
    bare = rocksdict.Rdict(str(tmp_path / "0"), unmerged)
    for number in range(40):
        bare.put(b"%d" % number, b"x")
        bare.flush()
    bare.close()
    assert len(content(Database(tmp_path / "0", options()))) == 40
    assert len(content(Database(tmp_path / "0", options()))) == 40


def test_files_are_merged_after_the_opening(tmp_path):
    """Merging is held back for the look at the files, and only for it."""
    database = Database(tmp_path / "0", options())
    end_s = time.monotonic() + 30.0
    fewest = written = 0
    while written < 200 and fewest >= written - 1:
        database.put(b"%d" % written, b"x")
        database.flush()
        written += 1
        fewest = len(database._open.live_files())
        assert time.monotonic() < end_s
    assert fewest < written - 1
    assert len(content(database)) == written


@pytest.mark.parametrize("open_one", [lambda path: Database(path, options()), lambda path: open_anew(path, options)])
def test_a_database_of_a_newer_release_is_refused_and_left_as_it_is(tmp_path, open_one):
    database = open_one(tmp_path / "0")
    database.put(b"a", b"b")
    database.close()
    (tmp_path / "0" / FORMAT_FILE).write_text(f"{FORMAT + 1}\n")
    with pytest.raises(StorageRefused, match=f"/0 has format 2, this release knows 1: .*delete {tmp_path}/0"):
        open_one(tmp_path / "0")
    (tmp_path / "0" / FORMAT_FILE).write_text(f"{FORMAT}\n")
    assert content(open_one(tmp_path / "0")) == {b"a": b"b"}


def test_a_database_from_before_there_were_formats_has_the_first(tmp_path):
    database = Database(tmp_path / "0", options())
    database.put(b"a", b"b")
    database.close()
    (tmp_path / "0" / FORMAT_FILE).unlink()
    assert content(Database(tmp_path / "0", options())) == {b"a": b"b"}
    assert (tmp_path / "0" / FORMAT_FILE).read_text() == "1\n"


@pytest.mark.parametrize("harm", [b"", b"\xff\xfe", b"one"])
def test_a_format_that_is_none_costs_the_database_and_not_the_process(tmp_path, harm):
    open_anew(tmp_path / "0", options).close()
    (tmp_path / "0" / FORMAT_FILE).write_bytes(harm)
    assert content(open_anew(tmp_path / "0", options)) == {}


def test_all_databases_of_a_process_share_one_block_cache(tmp_path):
    read, other = (Database(tmp_path / name, options()) for name in ("read", "other"))
    usage = "rocksdb.block-cache-usage"
    for number in range(20_000):
        read.put(b"%d" % number, b"x" * 100)
    read.flush()
    before = other._open.property_int_value(usage)
    assert len([*read.items()]) == 20_000
    assert other._open.property_int_value(usage) > before + 1_000_000
    for database in (read, other):
        assert database._open.property_int_value("rocksdb.block-cache-capacity") == ALL_BLOCK_CACHES_BYTES
        database.close()


def test_many_databases_with_little_in_them_write_no_files(tmp_path):
    """Index and cache of 64 partitions: together their buffers are bounded, and empty ones take next to nothing."""
    databases = [Database(tmp_path / str(number), options()) for number in range(128)]
    for turn in range(3):
        for database in databases:
            batch = rocksdict.WriteBatch(raw_mode=True)
            for query in range(20):
                batch.put(b"query %d %d" % (turn, query), b"decision" * 80)
            database.write(batch)
    assert not [*tmp_path.glob("*/*.sst")]
    for database in databases:
        database.close()
