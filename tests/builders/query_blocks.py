"""Queries in a block, for tests."""

from clipper_stream.query import DecodedBlock


def block_of(queries):
    """The block of queries of one application, each of one row."""
    first = queries[0]
    return DecodedBlock(
        [one.query_id for one in queries],
        first.application,
        [one.rows[0] for one in queries],
        [one.queried_at_s for one in queries],
        first.partition,
        [one.offset for one in queries],
        first.generation,
        [one.key for one in queries],
        first.content_type,
        None if first.deadline_s is None else [one.deadline_s for one in queries],
    )
