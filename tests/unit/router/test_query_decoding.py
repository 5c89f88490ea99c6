"""Records become queries; what is none is told apart, and what cannot be answered says why."""

import msgspec
import pytest
from builders.kafka import record
from builders.query_router import application, make_router, query_at

from clipper_agents.router.queries import ROWS_TOGETHER, decode_queries
from clipper_topics import codec
from clipper_topics.containers import LARGE_BYTES

INF, NAN = float("inf"), float("nan")
DIGITS = b"9" * 400
PLAIN = b'{"application": "app", "input": 1}'


def query_of(value, **changes):
    (found,) = queries_of([record(7, value, **({"partition": 2} | changes))], generation=4)
    return found


def queries_of(records, generation=0, **settings):
    """The queries one by one, in the order of their batches."""
    batches, _ = decode_queries(records, generation, **settings)
    return [
        query_at(batch, index)._replace(rows=batch.rows[batch.row_start[index] : batch.row_start[index + 1]])
        for batch in batches
        for index in range(len(batch))
    ]


def with_fields(fields):
    """A query in JSON with more fields, given as they are written."""
    return b'{"application": "app", "input": 1, ' + fields + b"}"


def test_a_query_has_what_its_record_says():
    fields = b'"query_id": "q", "context": "c", "deadline_ms": 250, "models": ["m"], "features": [1, 0.5]'
    found = query_of(with_fields(fields), timestamp=1_500, key=b"c")
    assert (found.query_id, found.application, found.rows, found.packed) == ("q", "app", [1], False)
    assert (found.context, found.deadline_s, found.models, found.queried_at_s) == ("c", 0.25, ["m"], 1.5)
    assert (found.partition, found.offset, found.generation, found.key) == (2, 7, 4, b"c")
    assert (found.content_type, found.invalid, found.features) == (codec.JSON, None, [1.0, 0.5])


def test_a_query_is_named_by_its_place_also_where_it_claims_the_id_of_a_router_and_keeps_any_other_id():
    assert query_of(PLAIN).query_id == "2@7"
    for claimed in ("2@8", "0@0", "99999999@1"):
        found = query_of(with_fields(b'"query_id": ' + msgspec.json.encode(claimed)))
        assert (found.query_id, "choose another id" in found.invalid) == ("2@7", True)
    for own in ("2-8", "@", "2@", "@8", "ada@home", "2@8@9", "2@-8", "2@8\n", "٢@٨"):
        found = query_of(with_fields(b'"query_id": ' + msgspec.json.encode(own)))
        assert (found.query_id, found.invalid) == (own, None)


@pytest.mark.parametrize("name", ["msgpack", "x-msgpack", "vnd.msgpack", "X-MSGPACK; charset=binary"])
def test_msgpack_under_any_of_its_names_is_answered_in_msgpack(name):
    value = msgspec.msgpack.encode({"application": "app", "inputs": [b"1", b"2"]})
    found = query_of(value, headers=[(codec.CONTENT_TYPE, f"application/{name}".encode())])
    assert (found.rows, found.packed, found.content_type) == ([b"1", b"2"], True, codec.MSGPACK)


TRACE = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
CORRELATION = ("Correlation-Id", b"\x00order 7")


@pytest.mark.parametrize("value", [PLAIN, b'{"application": "app", "inputs": [1, 2]}'])
def test_a_query_keeps_the_headers_that_its_prediction_repeats(value):
    given = [("tenant", b"7"), TRACE, *codec.JSON_HEADERS, CORRELATION, ("traceparent", None)]
    assert query_of(value, headers=given).echoed == (TRACE, CORRELATION)
    assert query_of(value).echoed == query_of(value, headers=codec.JSON_HEADERS).echoed == ()


@pytest.mark.parametrize(
    ("given", "deadline_s", "refused"),
    [
        *((given, 0.25, False) for given in (b"250", b"250.0", b"2.5e2")),
        *((DIGITS, 1e9, False), (b"-" + DIGITS, 0.0, True)),
        *((NAN, 0.0, True), (INF, 1e9, True), (-0.0, 0.0, True), (0.5, 0.0005, True)),
    ],
)
def test_a_deadline_is_a_number_however_it_is_written_and_a_time_from_now(given, deadline_s, refused):
    if isinstance(given, bytes):
        found = query_of(with_fields(b'"deadline_ms": ' + given))
    else:
        value = msgspec.msgpack.encode({"application": "app", "input": 1, "deadline_ms": given})
        found = query_of(value, headers=codec.MSGPACK_HEADERS)
    assert (found.deadline_s, "deadline_ms is" in (found.invalid or "")) == (deadline_s, refused)


def test_a_query_was_asked_when_the_log_says_whatever_the_clock_of_its_router():
    """One that was an hour behind shortened the horizon: feedback in time was not counted."""
    records = [record(0, PLAIN, timestamp=at_ms, clock=clock) for at_ms in (1_000, 3_609_000) for clock in (0, 1)]
    assert [query.queried_at_s for query in queries_of(records, now_s=9.0)] == [1.0, 1.0, 9.0, 3609.0]


def test_a_query_of_too_many_rows_is_refused_without_an_output_for_each():
    value = b'{"application": "app", "inputs": [' + b"0," * 400_000 + b"0]}"
    batches, _ = decode_queries([record(3, value)], 0)
    query = query_at(batches[0], 0)
    assert query.invalid == "inputs has 400001 rows: give at most 10000, and the others in further queries"
    app = application(default_output="x" * 100_000)
    (answer,) = make_router(app).receive(batches, query.queried_at_s).answers
    assert (answer.failure.reason, answer.outputs) == ("invalid_input", ["x" * 100_000])


def records_of(*contents):
    values = [msgspec.json.encode({"application": "app"} | one) for one in contents]
    return [record(offset, value, b"k", partition=3, timestamp=1_500) for offset, value in enumerate(values)]


def batches_decoded(*contents):
    batches, _ = decode_queries(records_of(*contents), generation=4)
    return [[*batch.offsets] for batch in batches]


def test_a_batch_has_the_queries_of_one_application_and_content_type_and_says_of_each_what_it_says_alone():
    one = {"query_id": "o", "input": 1}
    changes = [
        *({"query_id": None}, {"query_id": "2@8"}, {"query_id": "x" * 257}, {"query_id": "c", "context": "ada"}),
        *({"query_id": "m", "models": ["a"]}, {"query_id": "f", "features": [1]}, {"query_id": "d", "deadline_ms": 0}),
        *({"query_id": "n"}, {"query_id": "p", "input": None, "inputs": [1, 2]}),
    ]
    records = records_of(*(one | change for change in changes))
    batches, _ = decode_queries(records, 4)
    assert len(batches) == 1
    assert queries_of(records, 4) == [queries_of([each], 4)[0] for each in records]
    assert batches_decoded(one, one | {"query_id": "b", "application": "other"}, one | {"query_id": "c"}) == [
        [0, 2],
        [1],
    ]


def test_a_large_query_is_a_batch_of_its_own_and_many_rows_begin_another():
    plain = [{"query_id": f"q{number}", "input": number} for number in range(4)]
    plain[1]["input"] = "x" * LARGE_BYTES
    assert batches_decoded(*plain) == [[0, 2, 3], [1]]
    plain[1] = {"query_id": "many", "inputs": [1] * ROWS_TOGETHER}
    assert batches_decoded(*plain) == [[0, 1], [2, 3]]


def test_where_an_id_comes_again_new_batches_begin():
    names = ["q", "r", "q", "s"]
    assert batches_decoded(*({"query_id": name, "input": 1} for name in names)) == [[0, 1], [2, 3]]
