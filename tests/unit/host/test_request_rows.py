"""Request frames are checked before their rows are queued."""

from math import inf

import msgspec
import numpy as np
import pytest
from builders.host import ROUTER, request

from clipper_agents.host.request_rows import read_request, rows_of_request
from clipper_topics.frames import FRAME_VERSION, RequestFrame, UnknownFrame, decode_output, encode_frame


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8"])
def test_a_matrix_comes_back_as_it_was(dtype):
    asked = read_request(encode_frame(request([[1, 2, 3], [4, 5, 6]], dtype=dtype, reply=3, frame=7)), partitions=4)
    assert asked.rows.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert asked.rows.dtype == np.dtype(dtype)
    assert asked.kind == (dtype, 3)
    assert (asked.router, asked.frame, asked.reply) == (ROUTER, 7, 3)


@pytest.mark.parametrize(
    ("dtype", "rows"),
    [("text", ["a", ""]), ("bytes", [b"\0\xff", b""]), ("json", [{"a": [1, None]}, None, 3])],
)
def test_rows_of_the_other_kinds_come_back_as_they_were(dtype, rows):
    asked = read_request(encode_frame(request(rows, dtype=dtype)), partitions=1)
    assert asked.rows == rows
    assert asked.kind == (dtype,)


def test_rows_of_several_dimensions_are_of_another_kind():
    assert rows_of_request(request(np.zeros((2, 8, 8)), dtype="float32")).kind == ("float32", 8, 8)


def test_scalars_are_rows_too():
    asked = rows_of_request(request([1.0, 2.0], dtype="float64"))
    assert asked.rows.tolist() == [1.0, 2.0]
    assert asked.kind == ("float64",)


def test_deadlines_are_those_of_the_rows():
    assert rows_of_request(request(["a", "b"], deadline_s=[10.5, inf])).deadlines_s == (10.5, inf)


def test_without_deadlines_no_row_has_one():
    frame = msgspec.structs.replace(request(["a", "b"], deadline_s=1.0), deadlines=b"")
    assert rows_of_request(frame).deadlines_s == (inf, inf)


@pytest.mark.parametrize("rows", [[], np.zeros((0, 5))])
def test_a_frame_may_have_no_rows(rows):
    asked = rows_of_request(request(rows, dtype="float32" if len(np.shape(rows)) > 1 else "json"))
    assert len(asked.rows) == len(asked.deadlines_s) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": []}, "the number of rows comes first"),
        ({"shape": [-2, -3]}, "no number is negative"),
        ({"shape": [2, 4]}, "takes 32"),
        ({"shape": [2, 2**40]}, "a matrix of 24 bytes"),
        ({"matrix": b"123"}, "a matrix of 3 bytes"),
        ({"dtype": "object"}, "use one of"),
        ({"dtype": "complex64"}, "use one of"),
        ({"dtype": "text"}, "with 0 rows of text"),
        ({"deadlines": b"1234567"}, "8 bytes a row"),
        ({"deadlines": b"\0" * 24}, "deadlines of 24 bytes for 2 rows"),
        ({"reply": 4}, "the outputs topic has 4"),
        ({"reply": -1}, "the outputs topic has 4"),
    ],
)
def test_a_frame_whose_parts_contradict_one_another_is_refused(change, words):
    frame = msgspec.structs.replace(request([[1, 2, 3], [4, 5, 6]], dtype="float32"), **change)
    with pytest.raises(UnknownFrame, match=words):
        read_request(encode_frame(frame), partitions=4)


@pytest.mark.parametrize("value", [None, b"", b"\x01", b"\x02abc", b"{}", encode_frame(request(["a"]))[:-3]])
def test_bytes_that_are_no_frame_are_refused(value):
    with pytest.raises(UnknownFrame):
        read_request(value, partitions=4)


def test_a_frame_of_an_older_writer_without_optional_fields_is_read():
    frame = RequestFrame(router=b"r", frame=1, reply=0, dtype="float32", shape=[0, 3])
    assert len(rows_of_request(frame).rows) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": [2**40, 0]}, "has at most 16384 rows"),
        ({"shape": [1, 0, 2**62, 2**62]}, "shape"),
        ({"shape": [1, 0, *[1] * 70]}, "shape"),
        ({"router": b"r" * 65}, "identity of 65 bytes: at most 64"),
    ],
)
def test_a_frame_that_claims_more_than_its_bytes_is_refused(changes, words):
    fields = {"router": ROUTER, "frame": 1, "reply": 0, "dtype": "float32", "shape": [0, 1]} | changes
    with pytest.raises(UnknownFrame, match=words):
        read_request(encode_frame(RequestFrame(**fields)), partitions=1)


def test_an_extension_type_is_no_part_of_a_frame():
    for decode, fields in (
        (decode_output, [b"r", 1, 0, [msgspec.msgpack.Ext(5, b"")]]),
        (read_all, [b"r", 1, 0, "json"]),
    ):
        frame = bytes([FRAME_VERSION]) + msgspec.msgpack.encode([*fields, [1], b"", [msgspec.msgpack.Ext(5, b"")]])
        with pytest.raises(UnknownFrame, match="extension type 5"):
            decode(frame)


def read_all(value):
    return read_request(value, partitions=1)
