"""RocksDB for state beside Faust's tables: opened small, so that a process with many partitions stays small.

Rules of this file:
- What is kept here can be read again from a topic, or asked for again. After a power cut, and after a kill of who
  writes without a log (`unlogged`), the newest writes may be missing, and only these: what is on disk is a prefix of
  what was written. Whoever needs to know where the prefix ends writes his position in the same batch.
- Keys are written once and seldom deleted, so files are merged late (universal compaction): merging early and often
  took half of the processor time of a write.
- Most keys looked for are not there. A bloom filter says so, for the files and for the memtable.
"""

import rocksdict

WRITE_BUFFER_BYTES = 8 << 20
ALL_WRITE_BUFFERS_BYTES = 256 << 20
"""Of all databases of the process: with many partitions the largest buffers are written out early."""
ARENA_BLOCK_BYTES = 64 << 10
"""A buffer grows by so much. A database has a block and a bloom filter before it has an entry: with RocksDB's blocks of
1 MiB, the 128 databases of 64 partitions had used up all of the above, and each write wrote a file."""
ALL_BLOCK_CACHES_BYTES = 64 << 20
"""Of all databases of the process: blocks of whichever is read most; the number of partitions does not count."""
BLOOM_BITS = 10
"""Of 100 look-ups of a key that is not there, one reads the disk."""
MEMTABLE_BLOOM_RATIO = 0.02
"""Of the write buffer: 16 bits for each of its entries, where these are as small as those of the cache."""
FILES_BEFORE_MERGE = 8

_blocks = rocksdict.Cache(ALL_BLOCK_CACHES_BYTES)
_buffers = rocksdict.WriteBufferManager(ALL_WRITE_BUFFERS_BYTES, False)  # noqa: FBT003 (rocksdict's signature)


def options() -> rocksdict.Options:
    """Return the options of a database of raw bytes that is created if it is missing."""
    found = rocksdict.Options(raw_mode=True)
    found.create_if_missing(True)  # noqa: FBT003
    found.set_write_buffer_size(WRITE_BUFFER_BYTES)
    found.set_max_write_buffer_number(2)
    found.set_arena_block_size(ARENA_BLOCK_BYTES)
    found.set_write_buffer_manager(_buffers)
    found.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO)
    found.set_memtable_whole_key_filtering(True)
    found.set_compaction_style(rocksdict.DBCompactionStyle.universal())
    found.set_level_zero_file_num_compaction_trigger(FILES_BEFORE_MERGE)
    found.set_compression_type(rocksdict.DBCompressionType.none())
    share_blocks(found)
    return found


def share_blocks(found: rocksdict.Options) -> None:
    """Give a database its bloom filter, and its part of the block cache of the process."""
    table = rocksdict.BlockBasedOptions()
    table.set_bloom_filter(BLOOM_BITS, False)  # noqa: FBT003
    table.set_block_cache(_blocks)
    found.set_block_based_table_factory(table)


def unlogged() -> rocksdict.WriteOptions:
    """Return the options of a write that skips the write-ahead log."""
    written = rocksdict.WriteOptions()
    written.disable_wal = True  # type: ignore[method-assign, assignment]  # its stub takes it for a method
    return written
