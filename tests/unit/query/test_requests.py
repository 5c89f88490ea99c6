"""Requests of one shape each, none too large for a record."""

import msgspec
import numpy as np
from builders.query_router import NOW_S, application, make_router, query
from hypothesis import given
from hypothesis import strategies as st

from clipper_stream.models.row_spec import RowSpec
from clipper_stream.query import requests
from clipper_stream.query.requests import MAX_FRAME_BYTES, MAX_FRAME_ROWS


def requests_of(spec, rows):
    queries = [query(f"q{place}", rows=[row]) for place, row in enumerate(rows)]
    return make_router(application(spec=spec)).receive(queries, NOW_S).requests


def test_rows_of_different_lengths_go_in_different_requests():
    shapes = [request.rows.shape for request in requests_of(RowSpec("float32"), [[1], [1, 2], [2]])]
    assert shapes == [(2, 1), (1, 2)]


def test_a_request_has_a_bounded_number_of_rows():
    sizes = [len(request.rows) for request in requests_of(RowSpec("int64", ()), list(range(2500)))]
    assert sizes == [MAX_FRAME_ROWS, MAX_FRAME_ROWS, 2500 - 2 * MAX_FRAME_ROWS]


def test_a_request_is_bounded_in_bytes_and_a_huge_row_does_not_split_others():
    texts = ["é" * 100_000, *[f"short {number}" for number in range(10)], "x" * 2 * MAX_FRAME_BYTES, "last"]
    found = requests_of(RowSpec("text"), texts)
    sizes = [sum(len(row.encode()) for row in request.rows) for request in found]
    assert [len(request.rows) for request in found] == [11, 1, 1]
    assert all(size <= MAX_FRAME_BYTES or len(request.rows) == 1 for size, request in zip(sizes, found, strict=True))
    assert [row for request in found for row in request.rows] == texts


def test_rows_of_json_are_measured_not_guessed():
    rows = [{"pixels": [number + 0.5] * 10_000} for number in range(20)]
    found = requests_of(RowSpec("json"), rows)
    assert len(found) > 1
    assert all(len(msgspec.msgpack.encode(request.rows)) <= MAX_FRAME_BYTES + 100 for request in found)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
)


@given(json_values)
def test_a_row_is_never_measured_too_small(row):
    assert requests._row_bytes(row) >= len(msgspec.msgpack.encode(row)) - 5
    assert requests._row_bytes(np.zeros(7)) == 56
