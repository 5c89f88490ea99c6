"""The one store over RocksDB, a database a partition: it never answers wrongly, and stays small with many partitions.

Rules of this file:
- What is kept here can be read again from a topic, or asked for again. After a power cut, and after a kill of who
  writes without a log, the newest writes may be missing, and only these: what is on disk is a prefix of what was
  written. Whoever needs to know where the prefix ends writes his position in the same batch.
- A corrupt database is not repaired: its folder is renamed the moment that it is noticed, so that no start finds it
  again, and what it held is read from the logs. Whoever noticed it while reading ends: what else was read from there
  is not to be trusted. A start goes on with an empty database.
- A key that is read is checked by RocksDB (block checksums). An iteration that meets a corrupt block just ends, in
  rocksdict: only its status tells, so it is asked for.
- A manifest that has lost its end is not noticed by RocksDB, which then deletes the newer files: so the files that were
  there before are compared with those that the database knows. A flush that a crash cut off looks the same, and
  only costs the time to build the database anew.
- A database says in which format its entries are. One of a newer release is refused: its operator decides.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import rocksdict

from clipper_agents.streaming.storage import StorageFailed, StorageRefused, explained, storage_failed
from clipper_stream.errors import ClipperError

logger = logging.getLogger(__name__)

BROKEN = ".broken"
FORMAT = 1
"""Of the entries of all databases; a release that writes others counts it up."""
FORMAT_FILE = "FORMAT"
UNREADABLE = os.strerror(5)
"""EIO, a bad sector: what is there is lost, whatever RocksDB calls it."""
WRITE_BUFFER_BYTES = 8 << 20
ALL_WRITE_BUFFERS_BYTES = 256 << 20
"""Of all databases of the process: with many partitions the largest buffers are written out early."""
ARENA_BLOCK_BYTES = 64 << 10
"""A buffer grows by so much. A database has a block and a bloom filter before it has an entry: with RocksDB's blocks of
1 MiB, the 128 databases of 64 partitions had used up all of the above, and each write wrote a file."""
ALL_BLOCK_CACHES_BYTES = 64 << 20
"""Of all databases of the process: blocks of whichever is read most; the number of partitions does not count."""
BLOOM_BITS = 10
"""Most keys looked for are not there: of 100 look-ups of such a key, one reads the disk."""
MEMTABLE_BLOOM_RATIO = 0.02
"""Of the write buffer: 16 bits for each of its entries, where these are as small as those of the cache."""
FILES_BEFORE_MERGE = 8
"""Keys are written once and seldom deleted, so files are merged late (universal compaction): merging early and often
took half of the processor time of a write."""
_background = rocksdict.Env()
"""Threads that write buffers out and merge files. They take what the event loop leaves of its processor: beside it at
the same priority, each file held queries up for a fifth of a second."""
_background.lower_thread_pool_cpu_priority()
_background.lower_high_priority_thread_pool_cpu_priority()
_blocks = rocksdict.Cache(ALL_BLOCK_CACHES_BYTES)
_buffers = rocksdict.WriteBufferManager(ALL_WRITE_BUFFERS_BYTES, False)  # noqa: FBT003 (rocksdict's signature)


class DatabaseCorrupt(ClipperError):
    """The database was corrupt and has been set aside; the next start builds it anew."""


class Database:
    """An open database of raw bytes, created if it is missing.

    The folder `unit` is set aside when it is corrupt, its own by default: give the one that holds all databases that
    vouch for each other. Writes that are not `logged` may be lost when the process is killed.

    Raises:
        DatabaseCorrupt: it cannot be opened, and has been set aside.
        StorageFailed: the machine does not let it be opened.
        StorageRefused: a newer release has written it.
    """

    def __init__(self, path: Path, unit: Path | None = None, *, logged: bool = True) -> None:
        self.path, self._unit = path, unit or path
        self._written = rocksdict.WriteOptions()
        self._written.disable_wal = not logged  # type: ignore[method-assign, assignment]  # its stub has a method
        self._corrupt: str | None = None
        if path.exists() and not path.is_dir():
            raise self._set_aside("a file is in its place")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._check_format(path / FORMAT_FILE)
            before = {file.name for file in path.glob("*.sst")}
            self._open = rocksdict.Rdict(str(path), _options())
        except OSError as error:
            raise storage_failed(path, error) from error
        except ClipperError:
            raise
        except Exception as error:
            reason = str(error)
            if _is_about_files(reason) or (told := explained(path, reason)) is None:
                raise self._set_aside(reason) from error
            raise StorageFailed(f"{told} [{reason}]") from error
        self._know(before)
        self._checked(self._open.set_options, {"disable_auto_compactions": "false"})  # which writes a file

    def get(self, key: bytes) -> bytes | None:
        found: bytes | None = self._checked(self._open.get, key)
        return found

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._checked(self._open.get, list(keys)) or []

    def write(self, puts: Iterable[tuple[bytes, bytes]], deletes: Iterable[bytes] = ()) -> None:
        """Put entries and delete keys, all of it or nothing."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        put = batch.put
        for key, value in puts:
            put(key, value)
        for key in deletes:
            batch.delete(key)
        self._checked(self._open.write, batch, self._written)

    def items(self, first: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Every entry from a key on, in the order of the keys."""
        entries = self._checked(self._open.iter)
        entries.seek(first)
        while entries.valid():
            yield entries.key(), entries.value()
            entries.next()
        self._checked(entries.status)

    def _is_readable(self) -> bool:
        """Read every entry, a million in half a second, and return whether all can be read; else close the database."""
        try:
            entries = self._checked(self._open.iter)
            entries.seek_to_first()
            valid, following = entries.valid, entries.next
            while valid():
                following()
            self._checked(entries.status)
        except DatabaseCorrupt:
            self.close()
            return False
        return True

    @property
    def estimated_size(self) -> int:
        """How many entries there are, about; one that was written several times lately counts as often."""
        found: int = self._checked(self._open.property_int_value, "rocksdb.estimate-num-keys")
        return found

    def flush(self) -> None:
        self._checked(self._open.flush)

    def close(self) -> None:
        """Close the database. Writes that the disk refuses now are read from the logs again."""
        try:
            self._open.close()
        except Exception as error:  # noqa: BLE001 (rocksdict raises no other)
            logger.warning("closed without its last writes: %s", storage_failed(self.path, str(error)))

    def _checked(self, call: Callable[..., Any], *arguments: Any) -> Any:
        if self._corrupt is not None:
            raise DatabaseCorrupt(self._corrupt)
        try:
            return call(*arguments)
        except Exception as error:
            reason = str(error)
            if "Corruption" in reason or UNREADABLE in reason:
                raise self._set_aside(reason) from error
            raise storage_failed(self.path, reason) from error

    def _check_format(self, file: Path) -> None:
        found = file.read_text(errors="replace").strip() if file.exists() else ""
        if not found:
            file.write_text(f"{FORMAT}\n")
        elif not (found.isascii() and found.isdecimal()):
            raise self._set_aside(f"{FORMAT_FILE} has no number")
        elif int(found) > FORMAT:
            raise StorageRefused(
                f"{self.path} has format {int(found)}, this release knows {FORMAT}: a newer one has written it. Start "
                f"that one, or delete {self._unit}: it is built anew from the logs"
            )

    def _know(self, before: set[str]) -> None:
        """Check that the database knows the files that were there when it was opened."""
        known = {Path(file["name"]).name for file in self._open.live_files()}
        unknown = sorted(before - known)
        if unknown:
            self._open.close()
            raise self._set_aside(f"its manifest does not know {', '.join(unknown)}")

    def _set_aside(self, reason: str) -> DatabaseCorrupt:
        self._corrupt = (
            f"{self.path} is corrupt ({reason}): {self._unit} was set aside, and is built anew from the logs"
        )
        try:
            set_aside(self._unit, reason)
        except OSError as error:
            raise StorageFailed(f"{self.path} is corrupt ({reason}): delete {self._unit} ({error})") from error
        return DatabaseCorrupt(self._corrupt)


def open_anew(path: Path, *, logged: bool = True) -> Database:
    """The database with everything that is in it, or an empty one: every entry has been read."""
    for _ in range(2):
        with contextlib.suppress(DatabaseCorrupt):
            found = Database(path, logged=logged)
            if found._is_readable():
                break
    else:
        found = Database(path, logged=logged)
    forget_broken(path)
    return found


def _options() -> rocksdict.Options:
    found, table = rocksdict.Options(raw_mode=True), rocksdict.BlockBasedOptions()
    found.set_env(_background)
    found.create_if_missing(True)  # noqa: FBT003 (rocksdict's signature)
    found.set_disable_auto_compactions(True)  # until the files were compared
    found.set_write_buffer_size(WRITE_BUFFER_BYTES)
    found.set_max_write_buffer_number(2)
    found.set_arena_block_size(ARENA_BLOCK_BYTES)
    found.set_write_buffer_manager(_buffers)
    found.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO)
    found.set_memtable_whole_key_filtering(True)
    found.set_compaction_style(rocksdict.DBCompactionStyle.universal())
    found.set_level_zero_file_num_compaction_trigger(FILES_BEFORE_MERGE)
    found.set_compression_type(rocksdict.DBCompressionType.none())
    table.set_bloom_filter(BLOOM_BITS, False)  # noqa: FBT003
    table.set_block_cache(_blocks)
    found.set_block_based_table_factory(table)
    return found


def set_aside(path: Path, reason: str) -> None:
    """Rename a folder, so that its content is not found again."""
    logger.warning("corrupt, set aside to be built anew from the logs path=%s reason=%s", path, reason)
    forget_broken(path)
    path.rename(_broken(path))


def forget_broken(path: Path) -> None:
    """Delete what was set aside."""
    broken = _broken(path)
    if broken.is_dir():
        shutil.rmtree(broken, ignore_errors=True)
    else:
        broken.unlink(missing_ok=True)


def _broken(path: Path) -> Path:
    return path.with_name(path.name + BROKEN)


def _is_about_files(reason: str) -> bool:
    """Return whether opening failed because of the folder's content, for example a missing file."""
    return "Corruption" in reason or UNREADABLE in reason or os.strerror(2) in reason
