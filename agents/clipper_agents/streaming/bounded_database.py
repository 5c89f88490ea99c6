"""A database of bounded size that drops what was written first: for figures over time that are made again when lost.

Rules of this file:
- Files are never merged (FIFO compaction): the oldest one goes when all have too many bytes. So a database takes no
  more space while it works; entries that overwrote each other took twice the space that they held.
- What cannot be used is removed: a corrupt database, and one of a newer release.
"""

import shutil
from functools import partial
from pathlib import Path

import rocksdict

from clipper_agents.streaming.databases import Database, open_anew
from clipper_agents.streaming.storage import StorageRefused

WRITE_BUFFER_BYTES = 1 << 20
"""A file holds as much, compressed; the log of writes that are in no file yet is twice as long at most."""
BLOCK_BYTES, BLOCK_CACHE_BYTES = 16 << 10, 4 << 20
"""A block is compressed as one, so that names in it that come again and again take little."""
LOG_BYTES = 256 << 10
"""Of RocksDB's own messages, and of its list of files."""
MOST_FILES = 100
"""Each start leaves a small one; when there are so many, they are put together."""


def open_bounded(path: Path, table_bytes: int) -> Database:
    """The database with what can be read of it, or an empty one; errors as of `open_anew`."""
    options = partial(_options, table_bytes)
    try:
        found = open_anew(path, options=options)
    except StorageRefused:
        shutil.rmtree(path, ignore_errors=True)
        found = open_anew(path, options=options)
    if len([*path.glob("*.sst")]) <= MOST_FILES:
        return found
    entries = [*found.items()]
    found.close()
    shutil.rmtree(path, ignore_errors=True)
    found = open_anew(path, options=options)
    found.write(entries)
    return found


def _options(table_bytes: int) -> rocksdict.Options:
    found, fifo, table = rocksdict.Options(raw_mode=True), rocksdict.FifoCompactOptions(), rocksdict.BlockBasedOptions()
    found.create_if_missing(True)  # noqa: FBT003 (rocksdict's signature)
    found.set_disable_auto_compactions(True)
    found.set_compaction_style(rocksdict.DBCompactionStyle.fifo())
    fifo.max_table_files_size = table_bytes
    found.set_fifo_compaction_options(fifo)
    found.set_write_buffer_size(WRITE_BUFFER_BYTES)
    found.set_compression_type(rocksdict.DBCompressionType.zstd())
    found.set_keep_log_file_num(1)
    found.set_max_log_file_size(LOG_BYTES)
    found.set_max_manifest_file_size(LOG_BYTES)
    table.set_block_size(BLOCK_BYTES)
    table.set_block_cache(rocksdict.Cache(BLOCK_CACHE_BYTES))
    table.set_bloom_filter(10, False)  # noqa: FBT003 (rocksdict's signature)
    found.set_block_based_table_factory(table)
    return found
