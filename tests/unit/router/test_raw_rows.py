"""A large query says what a small one says, and none of it becomes objects that nobody wants."""

import tracemalloc
from itertools import product

import msgspec
import pytest
from builders.kafka import record
from builders.query_router import NOW_S, application, make_router

from clipper_agents.router.queries import decode_queries
from clipper_agents.router.raw_rows import LARGE_BYTES
from clipper_stream.query.inputs import RowSpec
from clipper_topics.codec import JSON, MSGPACK, headers_of

SHAPES = ("float32", (3,)), ("float64", None), ("int64", (3,)), ("float32", ()), ("float32", (1, 3))
SPECS = [*(RowSpec(*one) for one in SHAPES), RowSpec("text"), RowSpec("bytes"), RowSpec("json")]
ROWS = [
    *([1, 2, 3], [1.5, 2, True], [1, 2], [], [[1, 2, 3]], 4, "text", {"base64": "AAAA"}, {"a": [1, {"b": None}]}),
    *([1, "2", 3], [{}, {}, {}], None, [1, None, 3], [1.0, 2, 3.0], [1, 2, float("nan")]),
]
ROWS_OF = {JSON: [*ROWS, [1, 2, 10**400], "\0" * 12], MSGPACK: [*ROWS, b"\0" * 12]}
ENCODE = {JSON: msgspec.json.encode, MSGPACK: msgspec.msgpack.encode}
KINDS = pytest.mark.parametrize("kind", [JSON, MSGPACK])


def sizes(value, kind):
    """A query as it is, and the same one as a record so large that its rows stay bytes."""
    if kind == JSON:
        return value, value + b" " * LARGE_BYTES
    return value, bytes([value[0] + 1]) + value[1:] + b"\xa3pad" + msgspec.msgpack.encode(b" " * LARGE_BYTES)


def decoded(value, kind, at_s=NOW_S):
    return decode_queries([record(0, value, None, headers=headers_of(kind), timestamp=int(at_s * 1000))], 0)


def encoded(kind, **rows):
    return sizes(ENCODE[kind]({"application": "app", **rows}), kind)


def outcome(spec, value, kind):
    """The rows that a model is asked about, or why it is not."""
    effects = make_router(application(spec=spec)).receive(decoded(value, kind).queries, NOW_S)
    if effects.answers:
        return [answer.failure.reason for answer in effects.answers]
    return [repr(row) for request in effects.requests for row in request.rows]


@KINDS
def test_a_large_query_is_understood_as_a_small_one(kind):
    differing = []
    for spec, row in product(SPECS, ROWS_OF[kind]):
        for rows in ({"input": row}, {"inputs": [row, [1, 2, 3]]}):
            small, large = (outcome(spec, value, kind) for value in encoded(kind, **rows))
            differing += [(spec, rows, small, large)] if small != large or not small else []
    assert differing == []


@pytest.mark.parametrize("rows", [{}, {"input": [1], "inputs": [[1]]}, {"inputs": []}])
def test_what_is_wrong_with_a_large_query_is_said_as_of_a_small_one(rows):
    small, large = (decoded(value, JSON).queries[0].invalid for value in encoded(JSON, **rows))
    assert small == large is not None


UNDECODABLE_ROWS = {
    "not UTF-8": (JSON, b'{"application":"app","query_id":"q","input":"\xff"}'),
    "too large for a double": (JSON, b'{"application":"app","query_id":"q","inputs":[[1],[1e999]]}'),
    "an extension": (MSGPACK, b"\x83\xabapplication\xa3app\xa8query_id\xa1q\xa5input\xd4\x05\x00"),
    "text that is not UTF-8": (MSGPACK, b"\x83\xabapplication\xa3app\xa8query_id\xa1q\xa5input\xa1\xff"),
}


@pytest.mark.parametrize(("kind", "value"), UNDECODABLE_ROWS.values(), ids=UNDECODABLE_ROWS)
def test_a_query_with_a_row_that_cannot_be_decoded_is_answered(kind, value):
    for either in sizes(value, kind):
        queries = decoded(either, kind).queries
        (answer,) = make_router(application(spec=RowSpec("json"))).receive(queries, NOW_S).answers
        assert (answer.query.query_id, answer.failure.reason) == ("q", "invalid_input")


@KINDS
@pytest.mark.parametrize(("row", "rows"), [([1], None), (None, [[1]]), (None, None)])
def test_null_beside_the_other_of_input_and_inputs_is_absent(row, rows, kind):
    for value in encoded(kind, input=row, inputs=rows):
        (found,) = decoded(value, kind).queries
        assert (found.packed, len(found.rows), found.invalid) == (rows is not None, 1, None)


@pytest.mark.parametrize("inputs", [b"3", b'{"a": 1}', b"[1"])
def test_rows_that_are_no_list_are_no_query(inputs):
    for value in sizes(b'{"application": "app", "inputs": %b}' % inputs, JSON):
        assert len(decoded(value, JSON).undecodable) == 1


@pytest.mark.parametrize(("age_s", "reason"), [(0, "invalid_input"), (3600, "arrived_late")])
def test_a_megabyte_of_maps_never_becomes_a_million_objects(age_s, reason):
    """It took 69 MB each, and 70 of them that arrived while the router was full ended it."""
    value = msgspec.msgpack.encode({"application": "app", "input": [{}] * 1_000_000})
    router = make_router(application())
    tracemalloc.start()
    try:
        found = decoded(value, MSGPACK, NOW_S - age_s).queries
        (answer,) = router.receive(found, NOW_S).answers
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (answer.failure.reason, found[0].rows) == (reason, [])
    assert most < 4 * len(value)
