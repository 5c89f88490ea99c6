"""A large query says what a small one says, and none of it becomes objects that nobody wants."""

import tracemalloc

import msgspec
import pytest
from builders.kafka import record
from builders.query_router import NOW_S, application, make_router

from clipper_agents.router import queries
from clipper_agents.router.queries import decode_queries
from clipper_stream.query.inputs import RowSpec
from clipper_topics.codec import JSON, MSGPACK, headers_of

SPECS = [
    RowSpec("float32", (3,)),
    RowSpec("float64", None),
    RowSpec("int64", (3,)),
    RowSpec("float32", ()),
    RowSpec("float32", (1, 3)),
    RowSpec("text"),
    RowSpec("bytes"),
    RowSpec("json"),
]
ROWS = [
    [1, 2, 3],
    [1.5, 2, True],
    [1, 2],
    [],
    [[1, 2, 3]],
    4,
    "text",
    {"base64": "AAAA"},
    {"a": [1, {"b": None}]},
    [1, "2", 3],
    [1, 2, 10**400],
    [{}, {}, {}],
    None,
    [1, None, 3],
    [1.0, 2, 3.0],
    [1, 2, float("nan")],
    b"\0" * 12,
]
ENCODE = {JSON: msgspec.json.encode, MSGPACK: msgspec.msgpack.encode}


def of(rows, kind, monkeypatch, large_bytes):
    monkeypatch.setattr(queries, "LARGE_BYTES", large_bytes)
    try:
        value = ENCODE[kind]({"application": "app", **rows})
    except OverflowError:  # msgpack holds no such integer
        pytest.skip("not in this format")
    (decoded,) = decode_queries(
        [record(0, value, None, headers=headers_of(kind), timestamp=int(NOW_S * 1000))], 0
    ).queries
    return decoded


def outcome(spec, rows, kind, monkeypatch, large_bytes):
    router = make_router(application(spec=spec))
    effects = router.receive([of(rows, kind, monkeypatch, large_bytes)], NOW_S)
    if effects.answers:
        return [answer.failure.reason for answer in effects.answers]
    (request,) = effects.requests
    return [repr(row) for row in request.rows]


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
@pytest.mark.parametrize("spec", SPECS, ids=repr)
@pytest.mark.parametrize("row", ROWS, ids=repr)
def test_a_large_query_is_understood_as_a_small_one(row, spec, kind, monkeypatch):
    if isinstance(row, bytes) and kind == JSON:
        row = row.decode()
    for rows in ({"input": row}, {"inputs": [row, [1, 2, 3]]}):
        assert outcome(spec, rows, kind, monkeypatch, 0) == outcome(spec, rows, kind, monkeypatch, 1 << 20)


@pytest.mark.parametrize("rows", [{}, {"input": [1], "inputs": [[1]]}, {"inputs": []}])
def test_what_is_wrong_with_a_large_query_is_said_as_of_a_small_one(rows, monkeypatch):
    small, large = (of(rows, JSON, monkeypatch, bound).invalid for bound in (1 << 20, 0))
    assert small == large is not None


UNDECODABLE_ROWS = {
    "not UTF-8": (JSON, b'{"application":"app","query_id":"q","input":"\xff"}'),
    "too large for a double": (JSON, b'{"application":"app","query_id":"q","inputs":[[1],[1e999]]}'),
    "an extension": (MSGPACK, b"\x83\xabapplication\xa3app\xa8query_id\xa1q\xa5input\xd4\x05\x00"),
    "text that is not UTF-8": (MSGPACK, b"\x83\xabapplication\xa3app\xa8query_id\xa1q\xa5input\xa1\xff"),
}


@pytest.mark.parametrize("large_bytes", [0, 1 << 20])
@pytest.mark.parametrize(("kind", "value"), UNDECODABLE_ROWS.values(), ids=UNDECODABLE_ROWS)
def test_a_query_with_a_row_that_cannot_be_decoded_is_answered(kind, value, large_bytes, monkeypatch):
    monkeypatch.setattr(queries, "LARGE_BYTES", large_bytes)
    at_ms = int(NOW_S * 1000)
    found = decode_queries([record(0, value, None, headers=headers_of(kind), timestamp=at_ms)], 0).queries
    (answer,) = make_router(application(spec=RowSpec("json"))).receive(found, NOW_S).answers
    assert (answer.query.query_id, answer.failure.reason) == ("q", "invalid_input")


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_null_beside_the_other_of_input_and_inputs_is_absent(kind, monkeypatch):
    for large_bytes in (0, 1 << 20):
        row = of({"input": [1, 2, 3], "inputs": None}, kind, monkeypatch, large_bytes)
        rows = of({"input": None, "inputs": [[1, 2, 3]]}, kind, monkeypatch, large_bytes)
        null = of({"input": None, "inputs": None}, kind, monkeypatch, large_bytes)
        assert [(one.packed, len(one.rows), one.invalid) for one in (row, rows, null)] == [
            (False, 1, None), (True, 1, None), (False, 1, None),
        ]  # fmt: skip


@pytest.mark.parametrize("inputs", [b"3", b'{"a": 1}', b"[1"])
def test_rows_that_are_no_list_are_no_query(inputs, monkeypatch):
    for large_bytes in (0, 1 << 20):
        monkeypatch.setattr(queries, "LARGE_BYTES", large_bytes)
        value = b'{"application": "app", "inputs": %b}' % inputs
        assert len(decode_queries([record(0, value, None)], 0).undecodable) == 1


@pytest.mark.parametrize("late", [False, True])
def test_a_megabyte_of_maps_never_becomes_a_million_objects(late):
    """It took 69 MB each, and 70 of them that arrived while the router was full ended it."""
    value = msgspec.msgpack.encode({"application": "app", "input": [{}] * 1_000_000})
    at_ms = int((NOW_S - (3600 if late else 0)) * 1000)
    router = make_router(application())
    tracemalloc.start()
    try:
        found = decode_queries([record(0, value, None, headers=headers_of(MSGPACK), timestamp=at_ms)], 0).queries
        (answer,) = router.receive(found, NOW_S).answers
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.failure.reason == ("arrived_late" if late else "invalid_input")
    assert most < 4 * len(value)
    assert found[0].rows == []
