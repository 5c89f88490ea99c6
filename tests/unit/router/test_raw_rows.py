"""A large query says what a small one says, and none of it becomes objects that nobody wants."""

import tracemalloc
from itertools import product

import msgspec
import pytest
from builders.kafka import record
from builders.query_router import NOW_S, application, make_router

from clipper_agents.router.queries import decode_queries
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.query.batch import PLAIN
from clipper_topics.codec import JSON, MSGPACK, headers_of
from clipper_topics.containers import LARGE_BYTES, MOST_CONTAINERS, MOST_LEVELS, check_containers
from clipper_topics.query import MOST_ROWS

SHAPES = ("float32", (3,)), ("float64", None), ("int64", (3,)), ("float32", ()), ("float32", (1, 3))
SPECS = [*(RowSpec(*one) for one in SHAPES), RowSpec("text"), RowSpec("bytes"), RowSpec("json")]
COLUMNS = [("a", "number"), ("b", "text"), ("c", "date")]
SPECS += [RowSpec("float32", (3,), missing=True), RowSpec("table", columns=COLUMNS)]
SPECS += [RowSpec("table", columns=COLUMNS, missing=True)]
ROWS = [
    *([1, 2, 3], [1.5, 2, True], [1, 2], [], [[1, 2, 3]], 4, "text", {"base64": "AAAA"}, {"a": [1, {"b": None}]}),
    *({"a": 1, "b": "x", "c": "2026-01-31"}, [1, "x", "2026-01-31"], {"a": None}, {"a": "x"}, {"d": 1}, {"a": [1]}),
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
    batches, _ = decode_queries([record(0, value, None, headers=headers_of(kind), timestamp=int(at_s * 1000))], 0)
    return batches


def encoded(kind, **rows):
    return sizes(ENCODE[kind]({"application": "app", **rows}), kind)


def outcome(spec, value, kind):
    """The rows that a model is asked about, or why it is not."""
    batches = decoded(value, kind)
    if not batches:
        return []
    effects = make_router(application(spec=spec)).receive(batches, NOW_S)
    reasons = [(answer.query.query_id, answer.failure.reason, answer.query.invalid) for answer in effects.answers]
    return [
        *reasons,
        *((batches[0].options.get(0, PLAIN).packed, repr(row)) for request in effects.requests for row in request.rows),
    ]


@KINDS
def test_a_large_query_is_understood_as_a_small_one(kind):
    differing = []
    for spec, row in product(SPECS, ROWS_OF[kind]):
        for rows in ({"input": row}, {"inputs": [row, [1, 2, 3]]}):
            small, large = (outcome(spec, value, kind) for value in encoded(kind, **rows))
            differing += [(spec, rows, small, large)] if small != large or not small else []
    assert differing == []


NO_QUERY, REFUSED = "[]", "[('q', 'invalid_input', None)]"
ODD = {
    "a number in place of rows": (JSON, b'{"application":"app","inputs":3}', NO_QUERY),
    "an object in place of rows": (JSON, b'{"application":"app","inputs":{"a":1}}', NO_QUERY),
    "a text of commas in place of rows": (JSON, b'{"application":"app","inputs":"%s"}' % (b"," * MOST_ROWS), NO_QUERY),
    "rows that do not end": (JSON, b'{"application":"app","inputs":[1}', NO_QUERY),
    "not UTF-8": (JSON, b'{"application":"app","query_id":"q","input":"\xff"}', REFUSED),
    "too large for a double": (JSON, b'{"application":"app","query_id":"q","inputs":[[1],[1e999]]}', REFUSED),
    "an extension": (MSGPACK, b"\x83\xabapplication\xa3app\xa8query_id\xa1q\xa5input\xd4\x05\x00", REFUSED),
    "text that is not UTF-8": (MSGPACK, b"\x83\xabapplication\xa3app\xa8query_id\xa1q\xa5input\xa1\xff", REFUSED),
    "neither": (JSON, b'{"application":"app"}', "neither input nor inputs"),
    "no rows": (JSON, b'{"application":"app","inputs":[]}', "give at least one row"),
    "both": (JSON, b'{"application":"app","input":1,"inputs":[1]}', "both input (one row) and inputs"),
    "null for rows": (JSON, b'{"application":"app","input":1,"inputs":null}', "[(False, '1')]"),
    "null for a row": (JSON, b'{"application":"app","input":null,"inputs":[1]}', "[(True, '1')]"),
    "null for both": (JSON, b'{"application":"app","input":null,"inputs":null}', "[(False, 'None')]"),
    "null in msgpack": (MSGPACK, b"\x83\xabapplication\xa3app\xa5input\x01\xa6inputs\xc0", "[(False, '1')]"),
    "and for the row": (MSGPACK, b"\x83\xabapplication\xa3app\xa5input\xc0\xa6inputs\x91\x01", "[(True, '1')]"),
}


@pytest.mark.parametrize(("kind", "value", "expected"), ODD.values(), ids=ODD)
def test_a_large_query_is_refused_as_a_small_one(kind, value, expected):
    small, large = (outcome(RowSpec("json"), either, kind) for either in sizes(value, kind))
    assert small == large
    assert expected in str(small)


MAPS = {JSON: b"[" + b"{}," * 330_000 + b"{}]", MSGPACK: b"\xdd" + (10**6).to_bytes(4, "big") + b"\x80" * 10**6}
PLACES = {"a row of numbers": ("input", "float32"), "a row of anything": ("input", "json")}
PLACES |= {"rows of numbers": ("inputs", "float32"), "rows of anything": ("inputs", "json")}


@KINDS
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("age_s", "reason"), [(0, "invalid_input"), (3600, "arrived_late")])
def test_a_megabyte_of_maps_never_becomes_a_million_objects(kind, place, age_s, reason):
    """Of one byte each they took 69 MB or 246 ms, and the router fell out of its group."""
    (field, dtype), encode = PLACES[place], ENCODE[kind]
    without, end = encode({"application": "app", field: None}), b"}" if kind == JSON else b""
    value = without.removesuffix(encode(None) + end) + MAPS[kind] + end
    router = make_router(application(spec=RowSpec(dtype)))
    tracemalloc.start()
    try:
        found = decoded(value, kind, NOW_S - age_s)
        (answer,) = router.receive(found, NOW_S).answers
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (answer.failure.reason, found[0].rows) == (reason if field == "input" else "invalid_input", [])
    assert most < 4 * len(value)


PARTS = [[1.5] * 64, {"x": 1, "y": "z"}, "[{,", b"\x80" * 9, None, [[], [{}]], {"deep": {"er": [[[1]]]}}]


def containers_in(value):
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict | list) + sum(map(containers_in, parts))


@KINDS
def test_lists_and_maps_are_counted_wherever_they_are_and_whatever_looks_like_them(kind):
    plain = [one for one in PARTS if kind == MSGPACK or not isinstance(one, bytes)]
    each = containers_in(plain)
    most = (MOST_CONTAINERS - 1) // each
    check_containers(ENCODE[kind]([plain] * most), kind)
    with pytest.raises(ValueError, match="20000"):
        check_containers(ENCODE[kind]([plain] * (most + 1)), kind)


def test_many_that_are_deep_in_each_other_are_refused_before_each_level_is_looked_at():
    """Nine hundred levels around a megabyte took two seconds."""
    value = [b"\x90" * (MOST_CONTAINERS + 1)]
    for _ in range(MOST_LEVELS):
        value = [value]
    with pytest.raises(ValueError, match="in each other"):
        check_containers(ENCODE[MSGPACK](value), MSGPACK)
