"""Tensors of requests as rows, and outputs as tensors."""

import base64
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor, triton_to_np_dtype

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
from clipper_stream.query.inputs import RowSpec, to_matrix
from clipper_topics.manifests import ApplicationManifest, InputSpec

INTEGERS = ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]
FLOATS = ["FP16", "FP32", "FP64"]
FOUR = InputSpec(dtype="float64", shape=[4])
ANY_LENGTH = InputSpec(dtype="float64")
JSON, TEXT, BYTES = InputSpec(dtype="json"), InputSpec(dtype="text"), InputSpec(dtype="bytes")


def refusal(match):
    return pytest.raises(Refusal, match=match)


# --- JSON -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("datatype", [*INTEGERS, *FLOATS, "BF16"])
@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6, 7, 8], [[1, 2, 3, 4], [5, 6, 7, 8]]])
def test_numbers_of_json_may_be_flat_or_nested(datatype, data):
    assert rows_of(tensor_of_json("x", datatype, [2, 4], data), FOUR) == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_rows_of_more_dimensions_are_nested_as_the_spec_says():
    spec, rows = InputSpec(shape=[2, 3]), [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]
    assert rows_of(tensor_of_json("x", "FP32", [2, 2, 3], rows), spec) == rows
    assert rows_of(tensor_of_json("x", "FP32", [2, 2, 3], [*range(1, 13)]), spec) == rows


def test_a_number_of_json_is_not_rounded_to_the_datatype():
    assert rows_of(tensor_of_json("x", "FP16", [1, 1], [0.1]), ANY_LENGTH) == [[0.1]]


def test_truth_values_are_truth_values():
    assert rows_of(tensor_of_json("x", "BOOL", [2], [True, False]), JSON) == [True, False]
    for data in ([2, 1], ["true", "false"], [None, True]):
        with refusal("is of BOOL and has the values"):
            tensor_of_json("x", "BOOL", [2], data)


def test_a_whole_number_may_be_written_as_a_float():
    rows = rows_of(tensor_of_json("x", "INT8", [2], [3.0, True]), JSON)
    assert rows == [3, True]
    assert type(rows[0]) is int


@pytest.mark.parametrize("datatype", INTEGERS)
def test_integers_beyond_the_range_of_their_datatype_are_refused(datatype):
    bounds = np.iinfo(triton_to_np_dtype(datatype))
    tensor_of_json("x", datatype, [2], [int(bounds.min), int(bounds.max)])
    for value in (int(bounds.min) - 1, int(bounds.max) + 1, 0.5, 10**400):
        with refusal(f"is of {datatype} and has the values .*: give integers that fit"):
            tensor_of_json("x", datatype, [2], [1, value])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, "1", None, [1], {"a": 1}])
def test_what_is_no_finite_number_is_refused(value):
    with refusal("is of FP64 and has the values .*: give finite numbers"):
        tensor_of_json("x", "FP64", [2], [1.0, value])


@pytest.mark.parametrize("data", [[1], [1, 2, 3], [], [[1, 2, 3]], [[1], [2], [3]]])
def test_values_that_are_not_as_many_as_the_shape_says_are_refused(data):
    with refusal("has . values and shape .2, 2.: give 4 values|data that is nested otherwise"):
        tensor_of_json("x", "FP32", [2, 2], data)


@pytest.mark.parametrize(
    "data", [[[1, 2], [3, 4], [5, 6]], [[1, 2, 3], [4, 5], [6]], [[1, 2, 3], 4, 5, 6], [[1], "abc"]]
)
def test_data_nested_otherwise_than_the_shape_is_refused(data):
    with refusal("nested otherwise: nest it as the shape, or give a flat list in row-major order"):
        tensor_of_json("x", "FP32", [2, 3], data)


@pytest.mark.parametrize("shape", [[-1, 4], [0], [0, 10**30], [10**30], [2**40] * 17, [1] * 18, [10**4000, 10**4000]])
@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_a_shape_without_bounds_is_refused_before_anything_is_allocated(shape, datatype):
    for make in (
        lambda: tensor_of_json("x", datatype, shape, [1]),
        lambda: tensor_of_bytes("x", datatype, shape, b"1"),
    ):
        with pytest.raises(Refusal) as found:
            make()
        assert found.value.status == 400
        assert len(str(found.value)) < 400


def test_a_shape_that_multiplies_to_more_than_is_there_is_refused():
    with refusal("give 4611686018427387904 values"):
        tensor_of_json("x", "FP32", [2**31, 2**31], [1.0])
    with refusal("give 18446744073709551616 bytes"):
        tensor_of_bytes("x", "FP32", [2**31, 2**31], b"1234")
    with refusal("are not 4611686018427387904 elements"):
        tensor_of_bytes("x", "BYTES", [2**31, 2**31], b"\0\0\0\0")


@pytest.mark.parametrize("datatype", ["FP8", "STRING", "", "fp32", "x" * 10_000])
def test_an_unknown_datatype_is_refused(datatype):
    with refusal("has datatype '.*: use one of FP32, .*BYTES"):
        tensor_of_json("x", datatype, [1], [1])
    with refusal("use one of FP32"):
        tensor_of_bytes("x", datatype, [1], b"1")


# --- bytes ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("datatype", [*INTEGERS, *FLOATS, "BOOL"])
def test_binary_numbers_are_read_as_triton_writes_them(datatype):
    array = np.array([[0, 1, 1, 0], [1, 1, 0, 1]], triton_to_np_dtype(datatype))
    rows = rows_of(tensor_of_bytes("x", datatype, [2, 4], array.tobytes()), FOUR)
    assert rows == ([row.tobytes() for row in array] if datatype == "FP64" else array.tolist())


def test_bfloat16_is_the_upper_half_of_a_float32():
    values = np.array([1.5, -2.0, 0.15625, 3.0], "<f4")
    raw = (values.view("<u4") >> 16).astype("<u2").tobytes()
    assert rows_of(tensor_of_bytes("x", "BF16", [1, 4], raw), FOUR) == [values.tolist()]


def test_binary_numbers_may_begin_anywhere_in_a_body():
    raw = memoryview(b"{}x" + np.arange(4, dtype="<f8").tobytes())[3:]
    assert rows_of(tensor_of_bytes("x", "FP64", [4], raw), FOUR) == [bytes(raw)]
    assert rows_of(tensor_of_bytes("x", "FP32", [2, 4], raw), FOUR) == np.frombuffer(raw, "<f4").reshape(2, 4).tolist()


@pytest.mark.parametrize("raw", [b"", b"123", b"1" * 9])
def test_binary_numbers_of_another_length_are_refused(raw):
    with refusal(f"has {len(raw)} bytes, datatype FP32 and shape .2.: give 8 bytes"):
        tensor_of_bytes("x", "FP32", [2], raw)


@pytest.mark.parametrize("datatype", [*FLOATS, "BF16"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_binary_numbers_that_are_not_finite_are_refused(datatype, value):
    dtype = "<f4" if datatype == "BF16" else triton_to_np_dtype(datatype)
    raw = np.array([value], dtype).tobytes()[-2 if datatype == "BF16" else 0 :]
    with refusal("has NaN or infinity: give finite numbers"):
        tensor_of_bytes("x", datatype, [1], raw)


def test_binary_elements_are_read_as_triton_writes_them():
    raw = serialize_byte_tensor(np.array([b"", b"abc", "ä".encode()], object)).item()
    assert rows_of(tensor_of_bytes("x", "BYTES", [3, 1], raw), TEXT) == ["", "abc", "ä"]


@pytest.mark.parametrize(
    "raw",
    [b"", b"\1\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\0\0\0\0\0\0", struct.pack("<IcIc", 1, b"a", 2, b"b")],
)
def test_binary_elements_that_do_not_fill_their_bytes_are_refused(raw):
    with refusal(f"has {len(raw)} bytes that are not 2 elements: give each as its length"):
        tensor_of_bytes("x", "BYTES", [2], raw)


# --- rows -----------------------------------------------------------------------------------------------------------
def test_one_row_may_come_without_the_dimension_of_rows():
    assert rows_of(tensor_of_json("x", "FP32", [4], [1, 2, 3, 4]), FOUR) == [[1, 2, 3, 4]]
    assert rows_of(tensor_of_json("x", "FP32", [3], [1, 2, 3]), ANY_LENGTH) == [[1, 2, 3]]
    assert rows_of(tensor_of_json("x", "FP32", [2, 2], [1, 2, 3, 4]), InputSpec(shape=[2, 2])) == [[[1, 2], [3, 4]]]
    raw = np.arange(4, dtype="<f4").tobytes()
    assert rows_of(tensor_of_bytes("x", "FP32", [4], raw), FOUR) == [[0, 1, 2, 3]]


def test_rows_of_plain_numbers_are_numbers():
    spec = InputSpec(shape=[])
    assert rows_of(tensor_of_json("x", "FP32", [3], [1, 2, 3]), spec) == [1, 2, 3]
    assert rows_of(tensor_of_json("x", "FP32", [], [1]), spec) == [1]


@pytest.mark.parametrize("shape", [[8], [2, 2, 2], [4, 2], [1, 8], [1, 1, 8]])
def test_rows_of_another_shape_are_refused(shape):
    with refusal(r"tensor 'x' has datatype FP32 and shape \[.*: give FP64 of shape \[-1, 4\], rows first"):
        rows_of(tensor_of_json("x", "FP32", shape, [1] * 8), FOUR)


@pytest.mark.parametrize("shape", [[], [1, 1, 1]])
def test_rows_of_any_length_have_one_dimension(shape):
    with refusal(r"give FP64 of shape \[-1, -1\]"):
        rows_of(tensor_of_json("x", "FP32", shape, [1]), ANY_LENGTH)


def test_text_is_no_row_of_numbers_and_numbers_are_no_text():
    with refusal(r"has datatype BYTES and shape \[4\]: give FP64"):
        rows_of(tensor_of_json("x", "BYTES", [4], ["1", "2", "3", "4"]), FOUR)
    for spec in (TEXT, BYTES):
        with refusal(r"has datatype INT8 and shape \[1\]: give BYTES of shape \[-1\]"):
            rows_of(tensor_of_json("x", "INT8", [1], [1]), spec)
        with refusal("give BYTES"):
            rows_of(tensor_of_json("x", "BYTES", [1, 2], ["a", "b"]), spec)


def test_more_rows_than_a_query_may_have_are_refused():
    tensor = tensor_of_json("x", "FP32", [3, 4], [1] * 12)
    assert len(rows_of(tensor, FOUR, most_rows=3)) == 3
    with refusal("has 3 rows: give at most 2"):
        rows_of(tensor, FOUR, most_rows=2)


@pytest.mark.parametrize("shape", [[2], [2, 1], [2, 1, 1]])
def test_text_is_a_row_an_element(shape):
    assert rows_of(tensor_of_json("x", "BYTES", shape, ["a", "ä"]), TEXT) == ["a", "ä"]
    with refusal("has the element b'.xff' .*: give text"):
        rows_of(tensor_of_bytes("x", "BYTES", [1], b"\1\0\0\0\xff"), TEXT)


def test_bytes_go_as_base64():
    expected = [{"base64": base64.b64encode("ä".encode()).decode()}]
    assert rows_of(tensor_of_json("x", "BYTES", [1], ["ä"]), BYTES) == expected
    assert rows_of(tensor_of_json("x", "BYTES", [1], ["ä".encode()]), BYTES) == expected
    assert rows_of(tensor_of_bytes("x", "BYTES", [1], b"\2\0\0\0" + "ä".encode()), BYTES) == expected


def test_json_rows_are_json_texts_or_numbers():
    assert rows_of(tensor_of_json("x", "BYTES", [2, 1], ['{"a": [1]}', "null"]), JSON) == [{"a": [1]}, None]
    assert rows_of(tensor_of_json("x", "BYTES", [1, 2], ['"a"', "1"]), JSON) == [["a", 1]]
    assert rows_of(tensor_of_json("x", "INT8", [2, 1], [1, 2]), JSON) == [[1], [2]]
    assert rows_of(tensor_of_json("x", "INT8", [2], [1, 2]), JSON) == [1, 2]
    assert rows_of(tensor_of_json("x", "INT8", [], [1]), JSON) == [1]


@pytest.mark.parametrize("text", ["a", "", "[1", "NaN", "1e999", "[" * 100_000, b"\xff"])
def test_an_element_that_is_no_json_is_refused(text):
    with refusal("tensor 'x' has the element .*: give json"):
        rows_of(tensor_of_json("x", "BYTES", [1], [text]), JSON)


@pytest.mark.parametrize("data", [[1, "a"], [None, "a"], [["a"], "b"]])
def test_bytes_of_json_are_text(data):
    with refusal("is of BYTES and has the values .*: give text"):
        tensor_of_json("x", "BYTES", [2], data)


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=5), st.booleans()
)
def test_a_router_reads_the_numbers_that_were_sent(rows, is_binary):
    shape = [len(rows), 3]
    raw = np.array(rows, "<f4").tobytes()
    tensor = tensor_of_bytes("x", "FP32", shape, raw) if is_binary else tensor_of_json("x", "FP32", shape, rows)
    found = to_matrix(RowSpec("float32", (3,)), rows_of(tensor, InputSpec(shape=[3])))
    assert found.tobytes() == raw


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
    ],
)
def test_outputs_of_one_type_are_a_tensor_of_it(outputs, datatype, shape, data):
    tensor = output_tensor("output", outputs)
    assert (tensor.datatype, tensor.shape, tensor.data, tensor.content_type) == (datatype, shape, data, None)


@pytest.mark.parametrize(
    ("outputs", "data"),
    [
        ([None], ["null"]),
        ([None, 1.5], ["null", "1.5"]),
        ([{"a": 1}], ['{"a":1}']),
        ([[1], [1, 2]], ["[1]", "[1,2]"]),
        ([[], []], ["[]", "[]"]),
        ([[1], 2], ["[1]", "2"]),
        ([["a"], ["b"]], ['["a"]', '["b"]']),
        ([True, 1], ["true", "1"]),
        ([2**63], ["9223372036854775808"]),
        ([["a"], [1]], ['["a"]', "[1]"]),
    ],
)
def test_all_other_outputs_are_json_texts(outputs, data):
    tensor = output_tensor("output", outputs)
    assert (tensor.datatype, tensor.shape, tensor.data, tensor.content_type) == ("BYTES", (len(outputs),), data, "json")


@pytest.mark.parametrize("outputs", [[1, -2], [0.5, 1], [True, False], [[1.5, 2.5], [3.5, 4.5]]])
def test_binary_outputs_are_read_by_triton(outputs):
    tensor = output_tensor("output", outputs)
    array = np.frombuffer(bytes_of(tensor), triton_to_np_dtype(tensor.datatype)).reshape(tensor.shape)
    assert array.tolist() == outputs


def test_binary_texts_are_read_by_triton():
    assert deserialize_bytes_tensor(bytes_of(output_tensor("output", ["ä", ""]))).tolist() == ["ä".encode(), b""]


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1) | st.lists(st.text(st.characters(codec="utf-8")), min_size=1)
)
def test_what_bytes_hold_is_what_the_tensor_held(outputs):
    tensor = output_tensor("output", outputs)
    again = tensor_of_bytes("output", tensor.datatype, tensor.shape, bytes_of(tensor))
    assert rows_of(again, TEXT if isinstance(outputs[0], str) else JSON) == outputs


# --- metadata -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("spec", "datatype", "shape"),
    [
        (InputSpec(shape=[8, 8]), "FP32", [-1, 8, 8]),
        (InputSpec(dtype="uint8"), "UINT8", [-1, -1]),
        (InputSpec(dtype="int64", shape=[]), "INT64", [-1]),
        (TEXT, "BYTES", [-1]),
        (BYTES, "BYTES", [-1]),
        (JSON, "BYTES", [-1]),
    ],
)
def test_the_input_is_described_by_the_spec(spec, datatype, shape):
    manifest = ApplicationManifest(name="digits", models=[], input=spec)
    assert input_metadata(manifest) == [{"name": "input", "datatype": datatype, "shape": shape}]


@pytest.mark.parametrize(
    ("default", "combiner", "datatype", "shape"),
    [
        (None, "vote", "BYTES", [-1]),
        (None, "mean", "FP64", [-1]),
        (0, "vote", "INT64", [-1]),
        (0, "mean", "FP64", [-1]),
        ([0.1, 0.9], "mean", "FP64", [-1, 2]),
    ],
)
def test_the_output_is_described_by_the_default_output(default, combiner, datatype, shape):
    manifest = ApplicationManifest(name="digits", models=[], default_output=default, combiner=combiner)
    assert output_metadata(manifest) == [{"name": "output", "datatype": datatype, "shape": shape}]
