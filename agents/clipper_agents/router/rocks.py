"""RocksDB for state beside Faust's tables: opened small, so that a process with many partitions stays small."""

from pathlib import Path

import rocksdict

WRITE_BUFFER_BYTES = 4 << 20
BLOCK_CACHE_BYTES = 8 << 20
BLOOM_BITS = 10
"""Of 100 look-ups of a key that is not there, one reads the disk."""


def open_database(path: Path) -> rocksdict.Rdict:
    """A database of raw bytes, made if it is missing."""
    path.mkdir(parents=True, exist_ok=True)
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)  # noqa: FBT003 (rocksdict's signature)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    table = rocksdict.BlockBasedOptions()
    table.set_bloom_filter(BLOOM_BITS, False)  # noqa: FBT003
    table.set_block_cache(rocksdict.Cache(BLOCK_CACHE_BYTES))
    options.set_block_based_table_factory(table)
    return rocksdict.Rdict(str(path), options)
