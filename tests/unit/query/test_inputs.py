"""Inputs of queries as rows of a matrix: what fits, what does not, and what the message says."""

import datetime as dt
import math
import sys

import numpy as np
import pytest

from clipper_stream.errors import InvalidInput, InvalidSetting
from clipper_stream.models.row_spec import NUMERIC, RowSpec
from clipper_stream.query.inputs import to_matrix, to_rows

PAIR = RowSpec("float32", (2,))
OPEN = RowSpec("float32")
INTEGERS = RowSpec("int64", (2,))
GAPS = RowSpec("float32", (2,), missing=True)
COLUMNS = [("age", "number"), ("city", "text"), ("since", "date")]
TABLE, TABLE_GAPS = (RowSpec("table", columns=COLUMNS, missing=missing) for missing in (False, True))
ROME = {"age": 41.0, "city": "Rome", "since": "2026-01-31T00:00:00"}
NOTHING = dict.fromkeys(ROME)
DECLARE = "declare `missing = true` in the input"
RAW = np.array([5, 6], "<f4").tobytes()
LARGE = 2**53 + 1


def nested(levels):
    row = 1
    for _ in range(levels):
        row = [row]
    return row


def plain(rows):
    """Lists for arrays, with None for NaN."""
    return [np.where(row == row, row, None).tolist() if isinstance(row, np.ndarray) else row for row in rows]  # noqa: PLR0124


@pytest.mark.parametrize("dtype", NUMERIC)
def test_numbers_and_their_raw_bytes_become_the_same_matrix_of_the_dtype(dtype):
    numbers = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    first, second = (np.array(row, np.dtype(dtype).newbyteorder("<")).tobytes() for row in numbers)
    for rows in (numbers, [first, second], [memoryview(first), bytearray(second)]):
        matrix = to_matrix(RowSpec(dtype, (2, 2)), rows)
        assert (matrix.shape, matrix.dtype.name) == ((2, 2, 2), dtype)
        assert matrix.ravel().tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("spec", "rows", "expected"),
    [
        (PAIR, [], []),
        (PAIR, [[True, False]], [[1.0, 0.0]]),
        (PAIR, [[1, 2], RAW], [[1.0, 2.0], [5.0, 6.0]]),
        (PAIR, [RAW, [1, 2]], [[5.0, 6.0], [1.0, 2.0]]),
        (RowSpec("float64", ()), [1, 2.5], [1.0, 2.5]),
        (OPEN, [[1, 2, 3]], [[1.0, 2.0, 3.0]]),
        (OPEN, [bytes(12)], [[0.0, 0.0, 0.0]]),
        (OPEN, [[1, 2], [3, 4]], [[1.0, 2.0], [3.0, 4.0]]),
        (INTEGERS, [[3.0, -0.0]], [[3, 0]]),
        (INTEGERS, [[3, 0.0]], [[3, 0]]),
        (INTEGERS, [[True, 2.0**53 - 1]], [[1, 2**53 - 1]]),
        (RowSpec("text"), [], []),
        (RowSpec("text"), ["a", "ß"], ["a", "ß"]),
        (RowSpec("bytes"), [b"a", {"base64": "YQ=="}, bytearray(b"a")], [b"a"] * 3),
        (RowSpec("json"), [{"a": [1, None]}, "x", None], [{"a": [1, None]}, "x", None]),
        (GAPS, [[1, None], [math.nan, True]], [[1, None], [None, 1]]),
        (GAPS, [np.array([1, math.nan], "<f4").tobytes()], [[1, None]]),
        (RowSpec("float64", (1, 2), missing=True), [[[None, 2]]], [[[None, 2]]]),
        (TABLE, [{"age": True, "city": "Rome", "since": "2026-01-31"}], [ROME | {"age": 1.0}]),
        (TABLE, [{"since": "2026-01-31T02:00:00+02:00", "city": "Rome", "age": 41}], [ROME]),
        (TABLE, [[41, "Rome", "2026-01-31T00:00:00Z"]], [ROME]),
        (TABLE_GAPS, [{}, {"age": math.nan, "city": None}, [None] * 3], [NOTHING] * 3),
    ],
)
def test_rows_that_fit_are_a_matrix_or_a_list(spec, rows, expected):
    found = to_rows(spec, rows)
    assert isinstance(found.good, np.ndarray if spec.numeric else list)
    assert (plain(found.good), found.failed) == (expected, {})


def test_no_rows_have_the_shape_of_rows_still():
    assert to_matrix(PAIR, []).shape == (0, 2)


def test_rows_of_different_open_lengths_are_a_list_except_in_one_query():
    rows = to_rows(OPEN, [[1, 2], [3]])
    assert (plain(rows.good), rows.failed) == ([[1.0, 2.0], [3.0]], {})
    with pytest.raises(InvalidInput, match="not all of the same shape"):
        to_matrix(OPEN, [[1, 2], [3]])


BAD = [
    *((PAIR, [1, 2], bad, "float32 numbers of shape [2]") for bad in (
        [1], [1, 2, 3], [[1, 2]], 1, None, "12", ["1", "2"], [1, None], [1, "2"], [1, [2]], {"a": 1}, [1, math.nan],
        [1, math.inf], [1, 1e300], [1, 10**400], b"1234567", b"", ["x" * 10_000],
    )),
    *((RowSpec("uint8", (2,)), [1, 2], bad, "uint8 numbers of shape [2]") for bad in (
        [1, 2.5], [1, 256.0], [1, 256], [1, -1], [1, 2**70],
    )),
    *((INTEGERS, [LARGE, 1], bad, "int64") for bad in ([2.0**53, 1], [LARGE, 1.0], [math.nan, 1], [math.inf, 1])),
    *((RowSpec("bytes"), b"a", bad, "base64") for bad in (
        "YQ==", {"base64": "YQ"}, {"base64": "%%%%"}, {"base64": 3}, {}, None, [1],
    )),
    (PAIR, [1, 2], np.array([1, math.nan], "<f4").tobytes(), "NaN"),
    (OPEN, bytes(12), bytes(13), "multiple of the element size"),
    (RowSpec("text"), "a", 1, "the row 1: give a string"),
    (PAIR, [1, 2], [1, None], "is null (NaN becomes null in JSON): give float32 numbers of shape [2], or declare"),
    (PAIR, [1, 2], [1, math.nan], f"NaN for float32: give float32 numbers of shape [2], all finite, or {DECLARE}"),
    *((GAPS, [None, 2], bad, "float32 numbers of shape [2]") for bad in (
        [1], None, ["1", None], [None, math.inf], [None, 10**400], [1, [None]],
    )),
    *((TABLE_GAPS, ROME, ROME | bad, says) for bad, says in (
        ({"agee": 1}, "the columns ['agee'] are unknown: the table has ['age', 'city', 'since']"),
        ({"age": "41"}, "column 'age' has '41': give a finite number"),
        ({"age": math.inf}, "column 'age' has inf"), ({"age": 10**400}, "column 'age' has 10000"),
        ({"city": 7}, "column 'city' has 7: give a string"), ({"city": b"x"}, "give a string"),
        ({"since": "soon"}, "column 'since' has 'soon': give a day or a time in ISO 8601"),
        ({"since": 1.5}, "ISO 8601"), ({"since": "0001-01-01T00:00:00+12:00"}, "ISO 8601"),
    )),
    *((TABLE, ROME, bad, says) for bad, says in (
        ([41, "Rome"], "give an object, or a list, with the 3 columns"), ("Rome", "an object, or a list"),
        ({"age": 41, "city": "Rome"}, f"column 'since' is left out: give a date, or {DECLARE}"),
        (ROME | {"age": None}, f"column 'age' is null (NaN becomes null in JSON): give a number, or {DECLARE}"),
        (ROME | {"age": math.nan}, "column 'age' is NaN: give a number"),
        ({"age": 41, "city": "Rome", "when": "2026-01-31"}, "the columns ['when'] are unknown"),
    )),
    *((RowSpec("json"), nested(32), bad, says) for bad, says in (
        (2**64, "more than 64 bits"), ({"a": -(2**63) - 1}, "more than 64 bits"), ({1: "a"}, "keys other than text"),
        ([dt.datetime(2026, 1, 1, tzinfo=dt.UTC)], "a value of type datetime"),
        ({"a": [1.5, math.nan]}, "NaN or infinity"),
        (nested(33), "nested deeper than 32 levels"), (nested(900), "nested deeper than 32 levels"),
    )),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "good", "bad", "says"), BAD, ids=lambda value: repr(value)[:20])
def test_a_row_that_does_not_fit_costs_only_itself_and_is_named_with_what_was_expected(spec, good, bad, says):
    rows = to_rows(spec, [good, bad, good])
    assert plain(rows.good) == plain(to_rows(spec, [good, good]).good)
    assert list(rows.failed) == [1]
    with pytest.raises(InvalidInput) as caught:
        to_matrix(spec, [good, good, bad])
    for message in (str(rows.failed[1]), str(caught.value)):
        assert says in message
        assert len(message) < 250
    assert str(caught.value).startswith("row 2: ")


def test_a_row_is_never_rounded_otherwise_because_of_its_neighbours():
    large = [2**60 + 2**36 + 1, 1]
    alone = to_matrix(PAIR, [large])[0]
    beside = to_matrix(PAIR, [large, [0.5, 0.5]])[0]
    assert alone.tobytes() == beside.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "text", "bytes"])
def test_no_nesting_is_too_deep_for_a_message(dtype):
    deep = nested(sys.getrecursionlimit() * 2)
    assert "[[[[" in str(to_rows(RowSpec(dtype), [deep]).failed[0])


@pytest.mark.parametrize(
    ("dtype", "shape", "named"),
    [("float16", (2,), "dtype 'float16'"), *(("float32", (odd,), "shape") for odd in (0, -1, True))],
)
def test_a_spec_outside_its_bounds_is_refused(dtype, shape, named):
    with pytest.raises(InvalidSetting, match=named):
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


@pytest.mark.parametrize(
    ("last", "says"), [(None, "row 1023: the row None"), ([1, 2], "1024 rows, not all of the same")]
)
def test_the_row_that_is_wrong_is_found_by_halves(last, says):
    Counted.looked_at = 0
    with pytest.raises(InvalidInput, match=says):
        to_matrix(RowSpec(), Counted([[1]] * 1023 + [last]))
    assert 0 < Counted.looked_at < 4 * 1024
