"""Does a bounded database keep the newest entries in its bytes, however often it is written and opened?"""

from contextlib import suppress
from pathlib import Path

import numpy as np

from clipper_agents.streaming.bounded_database import MOST_FILES, WRITE_BUFFER_BYTES, open_bounded
from clipper_agents.streaming.databases import FORMAT_FILE

TABLE_BYTES = 4 << 20
ENTRY_BYTES, ENTRIES = 4 << 10, 6_000


def key(number: int) -> bytes:
    return b"%05d" % number


def size(folder: Path) -> int:
    found = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # the oldest one went meanwhile
            found += path.stat().st_size
    return found


def test_the_oldest_entries_go_and_the_newest_stay_within_the_bytes(tmp_path: Path) -> None:
    random, largest = np.random.default_rng(0), 0
    database = open_bounded(tmp_path / "0", TABLE_BYTES)
    for number in range(ENTRIES):
        database.write([(key(number), random.bytes(ENTRY_BYTES))])
        largest = max(largest, size(tmp_path / "0")) if number % 50 == 0 else largest
    assert largest < TABLE_BYTES + 4 * WRITE_BUFFER_BYTES
    kept = [number for number in range(ENTRIES) if database.get(key(number)) is not None]
    assert kept == list(range(kept[0], ENTRIES))
    assert len(kept) * ENTRY_BYTES > TABLE_BYTES - 2 * WRITE_BUFFER_BYTES
    database.close()


def test_many_small_files_are_put_together_at_the_next_start(tmp_path: Path) -> None:
    database = open_bounded(tmp_path / "0", TABLE_BYTES)
    for number in range(MOST_FILES + 5):
        database.write([(key(number), b"value")])
        database.flush()
    database.close()
    assert len([*(tmp_path / "0").glob("*.sst")]) > MOST_FILES
    database = open_bounded(tmp_path / "0", TABLE_BYTES)
    assert [found for found, _ in database.items()] == [key(number) for number in range(MOST_FILES + 5)]
    assert len([*(tmp_path / "0").glob("*.sst")]) < 10
    database.close()


def test_a_database_of_a_newer_release_is_removed(tmp_path: Path) -> None:
    database = open_bounded(tmp_path / "0", TABLE_BYTES)
    database.write([(b"key", b"value")])
    database.close()
    (tmp_path / "0" / FORMAT_FILE).write_text("99")
    database = open_bounded(tmp_path / "0", TABLE_BYTES)
    assert [*database.items()] == []
    database.close()
