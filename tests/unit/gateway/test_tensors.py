import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor, triton_to_np_dtype
from unit.gateway.rig import refuses

from clipper_gateway.errors import Refusal
from clipper_gateway.tensors import (
    bytes_of,
    input_metadata,
    output_metadata,
    output_tensor,
    rows_of,
    tensor_of_bytes,
    tensor_of_json,
)
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.query.inputs import to_matrix
from clipper_topics.manifests import ApplicationManifest, ColumnSpec, InputSpec

INTEGERS = ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]
FLOATS = ["FP16", "FP32", "FP64"]
FOUR = InputSpec(dtype="float64", shape=[4])
ANY_LENGTH, PLAIN = InputSpec(dtype="float64"), InputSpec(shape=[])
TABLE = InputSpec(dtype="table", columns=[ColumnSpec(name="a")], missing=True)
JSON, TEXT, BYTES = InputSpec(dtype="json"), InputSpec(dtype="text"), InputSpec(dtype="bytes")
CUBE = [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]
COUNT, COUNT_RAW = np.arange(4, dtype="<f4"), np.arange(4, dtype="<f4").tobytes()
SERIALIZED = serialize_byte_tensor(np.array([b"", b"abc", "ä".encode()], object)).item()
BF16 = (np.array([1.5, -2.0, 0.15625, 3.0], "<f4").view("<u4") >> 16).astype("<u2").tobytes()


def tensor_of(datatype, shape, data):
    """A tensor of bytes, or of what JSON has."""
    make = tensor_of_bytes if isinstance(data, bytes) else tensor_of_json
    return make("input", datatype, shape, data)


def ends_of(datatype):
    bounds = np.iinfo(triton_to_np_dtype(datatype))
    return [int(bounds.min), int(bounds.max)]


# --- rows -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("spec", "datatype", "shape", "data", "rows"),
    [
        *((FOUR, datatype, [2, 4], [*range(8)], [[0, 1, 2, 3], [4, 5, 6, 7]]) for datatype in (*INTEGERS, *FLOATS)),
        *((FOUR, datatype, [2, 4], [[1] * 4, [2] * 4], [[1] * 4, [2] * 4]) for datatype in (*FLOATS, "BF16")),
        (InputSpec(shape=[2, 3]), "FP32", [2, 2, 3], CUBE, CUBE),
        (InputSpec(shape=[2, 3]), "FP32", [2, 2, 3], [*range(1, 13)], CUBE),
        (ANY_LENGTH, "FP16", [1, 1], [0.1], [[0.1]]),
        (JSON, "BOOL", [2], [True, False], [True, False]),
        # one row without the dimension of rows, and rows of plain numbers
        (FOUR, "FP32", [4], [1, 2, 3, 4], [[1, 2, 3, 4]]),
        (FOUR, "FP32", [4], COUNT_RAW, [[0, 1, 2, 3]]),
        (ANY_LENGTH, "FP32", [3], [1, 2, 3], [[1, 2, 3]]),
        (InputSpec(shape=[2, 2]), "FP32", [2, 2], [1, 2, 3, 4], [[[1, 2], [3, 4]]]),
        (PLAIN, "FP32", [3], [1, 2, 3], [1, 2, 3]),
        (PLAIN, "FP32", [], [1], [1]),
        # bytes, as Triton writes them
        (FOUR, "BF16", [1, 4], BF16, [[1.5, -2.0, 0.15625, 3.0]]),
        (TEXT, "BYTES", [3, 1], SERIALIZED, ["", "abc", "ä"]),
        # a row an element
        *((TEXT, "BYTES", shape, ["a", "ä"], ["a", "ä"]) for shape in ([2], [2, 1], [2, 1, 1])),
        *((BYTES, "BYTES", [1], data, [{"base64": "w6Q="}]) for data in (["ä"], [b"\xc3\xa4"], b"\2\0\0\0\xc3\xa4")),
        (JSON, "BYTES", [2, 1], ['{"a": [1]}', "null"], [{"a": [1]}, None]),
        (JSON, "BYTES", [1, 2], ['"a"', "1"], [["a", 1]]),
        (TABLE, "BYTES", [2, 1], ['{"a": null}', "[1]"], [{"a": None}, [1]]),
        (JSON, "INT8", [2, 1], [1, 2], [[1], [2]]),
        (JSON, "INT8", [2], [1, 2], [1, 2]),
        (JSON, "INT8", [], [1], [1]),
        *((JSON, datatype, [2], ends_of(datatype), ends_of(datatype)) for datatype in INTEGERS),
    ],
)  # fmt: skip
def test_rows_are_what_the_spec_of_the_application_says(spec, datatype, shape, data, rows):
    assert rows_of(tensor_of(datatype, shape, data), spec) == rows


def test_a_whole_number_may_be_written_as_a_float():
    rows = rows_of(tensor_of_json("input", "INT8", [2], [3.0, True]), JSON)
    assert (rows, type(rows[0])) == ([3, True], int)


DATATYPES_OF_NUMPY = {"FP64": "<f8", "FP32": "<f4", "INT64": "<i8"}


@pytest.mark.parametrize("datatype", [*INTEGERS, *FLOATS, "BOOL"])
def test_binary_numbers_are_read_as_triton_writes_them_wherever_they_begin(datatype):
    array = np.array([[0, 1, 1, 0], [1, 1, 0, 1]], triton_to_np_dtype(datatype))
    raw = memoryview(b"{}x" + array.tobytes())[3:]
    rows = rows_of(tensor_of_bytes("input", datatype, [2, 4], raw), FOUR)
    assert rows == ([row.tobytes() for row in array] if datatype == "FP64" else array.tolist())


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=5), st.booleans()
)
def test_a_router_reads_the_numbers_that_were_sent(rows, is_binary):
    raw = np.array(rows, "<f4").tobytes()
    tensor = tensor_of("FP32", [len(rows), 3], raw if is_binary else rows)
    found = to_matrix(RowSpec("float32", (3,)), rows_of(tensor, InputSpec(shape=[3])))
    assert found.tobytes() == raw


# --- refused --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("datatype", "shape", "data", "said"),
    [
        *(("BOOL", [2], data, "give true or false") for data in ([2, 1], ["true", "false"], [None, True])),
        *(
            (datatype, [2], [1, value], "give integers that fit")
            for datatype in INTEGERS
            for least, largest in [ends_of(datatype)]
            for value in (least - 1, largest + 1, 0.5, 10**400)
        ),
        *(
            ("FP64", [2], [1.0, value], "give finite numbers")
            for value in (math.nan, math.inf, -math.inf, 10**400, "1", None, [1], {"a": 1})
        ),
        *(
            (datatype, [1], np.array([value], triton_to_np_dtype(datatype)).tobytes(), "give finite numbers")
            for datatype in FLOATS
            for value in (math.nan, math.inf)
        ),
        *(("BF16", [1], raw, "give finite numbers") for raw in (b"\xc0\x7f", b"\x80\x7f")),
        *(("FP32", [2, 2], data, "give 4 values") for data in ([1], [1, 2, 3], [])),
        *(("FP32", [2, 2], data, "nested otherwise") for data in ([[1, 2, 3]], [[1], [2], [3]])),
        *(
            ("FP32", [2, 3], data, "nested otherwise")
            for data in ([[1, 2], [3, 4], [5, 6]], [[1, 2, 3], [4, 5], [6]], [[1, 2, 3], 4, 5, 6], [[1], "abc"])
        ),
        *(("FP32", [2], raw, "give 8 bytes") for raw in (b"", b"123", b"1" * 9)),
        *(
            ("BYTES", [2], raw, f"has {len(raw)} bytes that are not 2 elements")
            for raw in (b"", b"\1\0\0\0", b"\xff" * 4, b"\0" * 4, b"\0" * 9, b"\1\0\0\0a\2\0\0\0b")
        ),
        *(("BYTES", [2], data, "give text") for data in ([1, "a"], [None, "a"], [["a"], "b"])),
        # a shape without bounds, or one that multiplies to more than is there
        *(
            (datatype, shape, data, "each from 1 to 2147483648")
            for shape in ([-1, 4], [0], [0, 10**30], [10**30], [2**40] * 17, [1] * 18, [10**4000, 10**4000])
            for datatype in ("FP32", "BYTES")
            for data in ([1], b"1")
        ),
        ("FP32", [2**31, 2**31], [1.0], "give 4611686018427387904 values"),
        ("FP32", [2**31, 2**31], b"1234", "give 18446744073709551616 bytes"),
        ("BYTES", [2**31, 2**31], b"\0\0\0\0", "are not 4611686018427387904 elements"),
        *(
            (datatype, [1], data, "use one of FP32, .*BYTES")
            for datatype in ("FP8", "STRING", "", "fp32", "x" * 10_000)
            for data in ([1], b"1")
        ),
    ],
)  # fmt: skip
def test_what_is_no_tensor_is_refused_before_anything_is_allocated(datatype, shape, data, said):
    with pytest.raises(Refusal, match=said) as refused:
        tensor_of(datatype, shape, data)
    assert (refused.value.status, len(str(refused.value)) < 500) == (400, True)


@pytest.mark.parametrize(
    ("spec", "datatype", "shape", "data", "said"),
    [
        *(
            (FOUR, "FP32", shape, [1] * 8, r"give FP64 of shape \[-1, 4\], rows first")
            for shape in ([8], [2, 2, 2], [4, 2], [1, 8], [1, 1, 8])
        ),
        *((ANY_LENGTH, "FP32", shape, [1], r"give FP64 of shape \[-1, -1\]") for shape in ([], [1, 1, 1])),
        (FOUR, "BYTES", [4], ["1", "2", "3", "4"], r"has datatype BYTES and shape \[4\]: give FP64"),
        *((spec, "INT8", [1], [1], r"give BYTES of shape \[-1\]") for spec in (TEXT, BYTES, TABLE)),
        *((spec, "BYTES", [1, 2], ["a", "b"], "give BYTES") for spec in (TEXT, BYTES)),
        (TEXT, "BYTES", [1], b"\1\0\0\0\xff", "element b'.xff' .*: give text"),
        *(
            (JSON, "BYTES", [1], [text], "element .*: give json")
            for text in ("a", "", "[1", "NaN", "1e999", "[" * 100_000, b"\xff")
        ),
    ],
)
def test_a_tensor_that_the_application_does_not_take_is_refused(spec, datatype, shape, data, said):
    with pytest.raises(Refusal, match=said):
        rows_of(tensor_of(datatype, shape, data), spec)


@pytest.mark.parametrize(
    ("dtype", "datatype", "values", "said"),
    [
        ("int64", "FP64", [1.0, 3.5], "integers that fit"),
        ("uint8", "INT64", [1, 300], "integers that fit"),
        ("uint8", "INT64", [1, -1], "integers that fit"),
        ("float32", "FP32", [1.0, 1e300], "finite numbers"),
        ("float32", "FP64", [1.0, 1e300], "finite numbers"),
        ("int32", "INT64", [1, 2**31], "integers that fit"),
    ],
)
def test_numbers_that_are_none_of_the_applications_type_are_refused(dtype, datatype, values, said):
    """They were answered by 200 and the `BYTES` null of a default output."""
    spec = InputSpec(dtype=dtype, shape=[2])
    with refuses(400, said):
        rows_of(tensor_of_json("input", datatype, [1, 2], values), spec)
    raw = np.array(values, DATATYPES_OF_NUMPY[datatype])
    with np.errstate(over="ignore"), refuses(400, "finite|no " + dtype):
        rows_of(tensor_of_bytes("input", datatype, [1, 2], raw.tobytes()), spec)


@pytest.mark.parametrize(("dtype", "datatype"), [("int64", "FP64"), ("uint8", "INT64"), ("float32", "FP64")])
def test_numbers_of_another_type_that_fit_are_taken(dtype, datatype):
    spec, values = InputSpec(dtype=dtype, shape=[2]), [1, 200]
    raw = np.array(values, DATATYPES_OF_NUMPY[datatype]).tobytes()
    assert rows_of(tensor_of_bytes("input", datatype, [1, 2], raw), spec) == [[1, 200]]
    assert rows_of(tensor_of_json("input", datatype, [1, 2], values), spec) == [[1, 200]]


def test_a_tensor_of_another_name_is_refused_but_one_in_capital_letters_is_taken():
    assert len(rows_of(tensor_of_json("INPUT", "FP32", [1, 4], [1] * 4), FOUR)) == 1
    with refuses(400, "tensor 'x' is none of the application's: call it input"):
        rows_of(tensor_of_json("x", "FP32", [1, 4], [1] * 4), FOUR)


def test_a_large_array_of_another_type_is_refused_before_it_becomes_numbers():
    tensor = tensor_of_bytes("input", "UINT8", [1, 500_001], bytes(500_001))
    with refuses(413, "at most 500000, or float32"):
        rows_of(tensor, InputSpec())


@pytest.mark.parametrize(
    ("answered", "datatype", "shape"),
    [(3, "INT64", [-1]), ([[0.5, 1, 2], [3, 4, 5]], "FP64", [-1, 2, 3]), ("cat", "BYTES", [-1])],
)
def test_metadata_says_what_the_last_answer_was(answered, datatype, shape):
    manifest = ApplicationManifest(name="digits", models=[], default_output=None, combiner="vote")
    assert output_metadata(manifest, answered) == [{"name": "output", "datatype": datatype, "shape": shape}]


def test_more_rows_than_a_query_may_have_are_refused():
    tensor = tensor_of_json("input", "FP32", [3, 4], [1] * 12)
    assert len(rows_of(tensor, FOUR, most_rows=3)) == 3
    with pytest.raises(Refusal, match="has 3 rows: give at most 2"):
        rows_of(tensor, FOUR, most_rows=2)


# --- outputs --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("outputs", "datatype", "shape", "data"),
    [
        ([3], "INT64", (1,), [3]),
        ([1, 2.5], "FP64", (2,), [1, 2.5]),
        ([True, False], "BOOL", (2,), [True, False]),
        (["cat", "dog"], "BYTES", (2,), ["cat", "dog"]),
        ([[1, 2], [3, 4]], "INT64", (2, 2), [1, 2, 3, 4]),
        ([[[0.5], [1.5]]], "FP64", (1, 2, 1), [0.5, 1.5]),
        ([[True], [False]], "BOOL", (2, 1), [True, False]),
        # all others are JSON texts
        ([None], "json", (1,), ["null"]),
        ([None, 1.5], "json", (2,), ["null", "1.5"]),
        ([{"a": 1}], "json", (1,), ['{"a":1}']),
        ([[1], [1, 2]], "json", (2,), ["[1]", "[1,2]"]),
        ([[], []], "json", (2,), ["[]", "[]"]),
        ([[1], 2], "json", (2,), ["[1]", "2"]),
        ([["a"], ["b"]], "json", (2,), ['["a"]', '["b"]']),
        ([True, 1], "json", (2,), ["true", "1"]),
        ([2**63], "json", (1,), ["9223372036854775808"]),
        ([["a"], [1]], "json", (2,), ['["a"]', "[1]"]),
    ],
)
def test_outputs_of_one_type_are_a_tensor_of_it_and_others_are_json(outputs, datatype, shape, data):
    tensor = output_tensor("output", outputs)
    of_json = ("BYTES", "json") if datatype == "json" else (datatype, None)
    assert (tensor.datatype, tensor.content_type, tensor.shape, tensor.data) == (*of_json, shape, data)


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1)
    | st.lists(st.text(st.characters(codec="utf-8")), min_size=1)
    | st.sampled_from([[0.5, 1], [True, False], [[1.5, 2.5], [3.5, 4.5]]])
)
def test_binary_outputs_are_read_by_triton_and_here(outputs):
    tensor = output_tensor("output", outputs)
    raw, spec = bytes_of(tensor), TEXT if isinstance(outputs[0], str) else JSON
    if tensor.datatype == "BYTES":
        found = [each.decode() for each in deserialize_bytes_tensor(raw)]
    else:
        found = np.frombuffer(raw, triton_to_np_dtype(tensor.datatype)).reshape(tensor.shape).tolist()
    assert found == rows_of(tensor_of_bytes("input", tensor.datatype, tensor.shape, raw), spec) == outputs


# --- metadata -------------------------------------------------------------------------------------------------------
def digits(**fields):
    return ApplicationManifest(name="digits", models=[], **fields)


@pytest.mark.parametrize(
    ("described", "of", "datatype", "shape"),
    [
        (input_metadata, InputSpec(shape=[8, 8]), "FP32", [-1, 8, 8]),
        (input_metadata, InputSpec(dtype="uint8"), "UINT8", [-1, -1]),
        (input_metadata, InputSpec(dtype="int64", shape=[]), "INT64", [-1]),
        *((input_metadata, spec, "BYTES", [-1]) for spec in (TEXT, BYTES, JSON)),
        (output_metadata, digits(default_output=None, combiner="vote"), "BYTES", [-1]),
        (output_metadata, digits(default_output=None, combiner="mean"), "FP64", [-1]),
        (output_metadata, digits(default_output=0, combiner="vote"), "INT64", [-1]),
        (output_metadata, digits(default_output=0, combiner="mean"), "FP64", [-1]),
        (output_metadata, digits(default_output=[0.1, 0.9], combiner="mean"), "FP64", [-1, 2]),
    ],
)
def test_the_input_is_described_by_its_spec_and_the_output_by_the_default(described, of, datatype, shape):
    name = "input" if described is input_metadata else "output"
    assert described(of) == [{"name": name, "datatype": datatype, "shape": shape}]
