"""Inputs of queries as rows of a matrix: what fits, what does not, and what the message says."""

import datetime as dt
import math
import sys

import numpy as np
import pytest

from clipper_stream.errors import InvalidInput, InvalidSetting
from clipper_stream.query.inputs import NUMERIC, RowSpec, to_matrix, to_rows

PAIR = RowSpec("float32", (2,))


def nested(levels):
    row = 1
    for _ in range(levels):
        row = [row]
    return row


@pytest.mark.parametrize("dtype", NUMERIC)
def test_lists_of_numbers_become_one_matrix_of_the_dtype(dtype):
    matrix = to_matrix(RowSpec(dtype, (2, 2)), [[[1, 2], [3, 4]], [[5, 6], [7, 8]]])
    assert (matrix.shape, matrix.dtype.name) == ((2, 2, 2), dtype)
    assert matrix.ravel().tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("dtype", NUMERIC)
def test_raw_bytes_become_the_same_matrix_as_numbers(dtype):
    spec = RowSpec(dtype, (3,))
    numbers = [[1, 2, 3], [4, 5, 6]]
    raw = [np.array(row, np.dtype(dtype).newbyteorder("<")).tobytes() for row in numbers]
    assert np.array_equal(to_matrix(spec, raw), to_matrix(spec, numbers))
    assert to_matrix(spec, [memoryview(raw[0]), bytearray(raw[1])]).dtype == np.dtype(dtype)


def test_a_plain_number_is_a_row_of_shape_nothing():
    assert to_matrix(RowSpec("float64", ()), [1, 2.5]).tolist() == [1.0, 2.5]


def test_rows_of_open_length_are_a_matrix_when_they_have_the_same():
    assert to_matrix(RowSpec("float32"), [[1, 2, 3]]).shape == (1, 3)
    assert to_rows(RowSpec("float32"), [[1, 2], [3, 4]]).good.shape == (2, 2)


def test_rows_of_different_open_lengths_are_a_list():
    rows = to_rows(RowSpec("float32"), [[1, 2], [3]])
    assert [row.tolist() for row in rows.good] == [[1.0, 2.0], [3.0]]
    assert not rows.failed


def test_rows_of_one_query_have_to_have_the_same_length():
    with pytest.raises(InvalidInput, match="not all of the same shape"):
        to_matrix(RowSpec("float32"), [[1, 2], [3]])


def test_true_and_false_are_one_and_zero():
    assert to_matrix(PAIR, [[True, False]]).tolist() == [[1.0, 0.0]]


def test_no_rows_are_an_empty_matrix():
    assert to_matrix(PAIR, []).shape == (0, 2)
    assert to_rows(RowSpec("text"), []).good == []


BAD = [
    [1],
    [1, 2, 3],
    [[1, 2]],
    1,
    None,
    "12",
    ["1", "2"],
    [1, None],
    [1, "2"],
    [1, [2]],
    {"a": 1},
    [1, math.nan],
    [1, math.inf],
    [1, 1e300],
    [1, 10**400],
    b"1234567",
    b"",
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad)[:20])
def test_a_bad_row_costs_only_itself(bad):
    rows = to_rows(PAIR, [[1, 2], bad, [3, 4]])
    assert rows.good.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert list(rows.failed) == [1]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad)[:20])
def test_a_bad_row_is_named_with_what_was_expected(bad):
    with pytest.raises(InvalidInput, match=r"row 2: .*float32 numbers of shape \[2\]"):
        to_matrix(PAIR, [[1, 2], [3, 4], bad])


def test_bytes_and_lists_may_be_mixed_in_a_batch():
    raw = np.array([5, 6], "<f4").tobytes()
    assert to_rows(PAIR, [[1, 2], raw]).good.tolist() == [[1.0, 2.0], [5.0, 6.0]]
    assert to_rows(PAIR, [raw, [1, 2]]).good.tolist() == [[5.0, 6.0], [1.0, 2.0]]


@pytest.mark.parametrize("bad", [[1, 2.5], [1, 256.0], [1, 256], [1, -1], [1, 2**70]])
def test_integers_refuse_fractions_and_what_they_cannot_hold(bad):
    rows = to_rows(RowSpec("uint8", (2,)), [[1, 2], bad])
    assert rows.good.tolist() == [[1, 2]]
    assert "uint8 numbers of shape [2]" in str(rows.failed[1])


@pytest.mark.parametrize("row", [[3.0, -0.0], [3, 0.0], [True, 2.0**53 - 1]])
def test_a_whole_number_in_float_form_is_an_integer(row):
    assert to_matrix(RowSpec("int64", (2,)), [row]).tolist() == [[int(number) for number in row]]


@pytest.mark.parametrize("row", [[2.0**53, 1], [2**53 + 1, 1.0], [math.nan, 1], [math.inf, 1]])
def test_a_float_that_may_be_one_integer_or_another_is_none(row):
    assert 1 in to_rows(RowSpec("int64", (2,)), [[2**53 + 1, 1], row]).failed
    assert to_rows(RowSpec("int64", (2,)), [[2**53 + 1, 1], row]).good.tolist() == [[2**53 + 1, 1]]


def test_a_row_is_never_rounded_otherwise_because_of_its_neighbours():
    large = [2**60 + 2**36 + 1, 1]
    alone = to_matrix(PAIR, [large])[0]
    beside = to_matrix(PAIR, [large, [0.5, 0.5]])[0]
    assert alone.tobytes() == beside.tobytes()


def test_raw_bytes_with_nan_are_refused():
    raw = np.array([1, math.nan], "<f4").tobytes()
    with pytest.raises(InvalidInput, match="NaN"):
        to_matrix(PAIR, [raw])


def test_raw_bytes_of_open_length_have_to_be_whole_elements():
    assert to_matrix(RowSpec("float32"), [bytes(12)]).shape == (1, 3)
    with pytest.raises(InvalidInput, match="multiple of the element size"):
        to_matrix(RowSpec("float32"), [bytes(13)])


def test_text_has_to_be_text():
    rows = to_rows(RowSpec("text"), ["a", 1, "ß"])
    assert rows.good == ["a", "ß"]
    assert str(rows.failed[1]) == "the row 1: give a string"


def test_bytes_come_raw_or_as_base64():
    assert to_rows(RowSpec("bytes"), [b"a", {"base64": "YQ=="}, bytearray(b"a")]).good == [b"a"] * 3


@pytest.mark.parametrize("bad", ["YQ==", {"base64": "YQ"}, {"base64": "%%%%"}, {"base64": 3}, {}, None, [1]])
def test_what_is_no_base64_is_refused(bad):
    with pytest.raises(InvalidInput, match="base64"):
        to_matrix(RowSpec("bytes"), [bad])


def test_json_is_passed_on_as_it_is():
    rows = [{"a": [1, None]}, "x", None]
    assert to_rows(RowSpec("json"), rows).good == rows


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (2**64, "more than 64 bits"),
        ({"a": -(2**63) - 1}, "more than 64 bits"),
        ({1: "a"}, "keys other than text"),
        ([dt.datetime(2026, 1, 1, tzinfo=dt.UTC)], "a value of type datetime"),
        ({"a": [1.5, math.nan]}, "NaN or infinity"),
        (nested(33), "nested deeper than 32 levels"),
        (nested(900), "nested deeper than 32 levels"),
    ],
    ids=["large", "small", "key", "type", "NaN", "deep", "deeper"],
)
def test_json_that_could_not_be_passed_on_is_refused(bad, says):
    rows = to_rows(RowSpec("json"), [nested(32), bad])
    assert rows.good == [nested(32)]
    assert says in str(rows.failed[1])


@pytest.mark.parametrize("dtype", ["float32", "text", "bytes"])
def test_no_nesting_is_too_deep_for_a_message(dtype):
    deep = nested(sys.getrecursionlimit() * 2)
    assert "[[[[" in str(to_rows(RowSpec(dtype), [deep]).failed[0])


def test_a_long_row_is_shortened_in_the_message():
    with pytest.raises(InvalidInput) as caught:
        to_matrix(PAIR, [["x" * 10_000]])
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("dtype", "shape"), [("float16", (2,)), ("float32", (0,)), ("float32", (-1,)), ("int32", (True,))]
)
def test_a_spec_outside_its_bounds_is_refused(dtype, shape):
    with pytest.raises(InvalidSetting, match=r"use|give"):
        RowSpec(dtype, shape)


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_a_long_text_does_not_take_its_room_for_every_row(dtype):
    with pytest.raises(InvalidInput, match="row 0: the row 'xxx"):
        to_matrix(RowSpec(dtype), ["x" * 1_000_000, *[1] * 10_000_000])  # 40 terabytes as an array of texts


class Counted(list):
    """A list of rows that counts how many are looked at in slices."""

    looked_at = 0

    def __getitem__(self, index):
        found = super().__getitem__(index)
        if isinstance(index, slice):
            Counted.looked_at += len(found)
        return found


@pytest.mark.parametrize("last", [None, [1, 2]], ids=["bad", "longer"])
def test_the_row_that_is_wrong_is_found_by_halves(last):
    Counted.looked_at = 0
    with pytest.raises(
        InvalidInput, match="row 1023: the row None" if last is None else "1024 rows, not all of the same"
    ):
        to_matrix(RowSpec(), Counted([[1]] * 1023 + [last]))
    assert Counted.looked_at < 4 * 1024
    assert Counted.looked_at > 0
