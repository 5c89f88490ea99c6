from math import inf

import msgspec
import numpy as np
import pytest
from builders.host import ROUTER, request, rows_of

from clipper_agents.host.batching import read_request
from clipper_agents.host.request_server import records_of
from clipper_topics.codec import (
    FRAME_VERSION,
    FailedRow,
    OutputFrame,
    RequestFrame,
    UnknownFrame,
    decode_output,
    encode_frame,
)

NO_BYTES = {"matrix": b"", "deadlines": b""}


def read_all(value):
    return read_request(value, partitions=4)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8"])
@pytest.mark.parametrize("shape", [(2,), (2, 3), (2, 2, 2)])
def test_a_matrix_comes_back_as_it_was(dtype, shape):
    rows = np.arange(np.prod(shape)).reshape(shape).tolist()
    asked = read_all(encode_frame(request(rows, dtype=dtype, reply=3, frame=7)))
    assert (asked.rows.tolist(), asked.rows.dtype, asked.kind) == (rows, np.dtype(dtype), (dtype, *shape[1:]))
    assert (asked.router, asked.frame, asked.reply) == (ROUTER, 7, 3)


@pytest.mark.parametrize(
    ("dtype", "rows"),
    [("text", ["a", ""]), ("bytes", [b"\0\xff", b""]), ("json", [{"a": [1, None]}, None, 3]), ("json", [])],
)
def test_rows_of_the_other_kinds_come_back_as_they_were(dtype, rows):
    asked = read_all(encode_frame(request(rows, dtype=dtype)))
    assert (asked.rows, asked.kind, len(asked.deadlines_s)) == (rows, (dtype,), len(rows))


def test_deadlines_are_those_of_the_rows_and_without_any_no_row_has_one():
    frame = request(["a", "b"], deadline_s=[10.5, inf])
    assert read_all(encode_frame(frame)).deadlines_s == (10.5, inf)
    assert read_all(encode_frame(msgspec.structs.replace(frame, deadlines=b""))).deadlines_s == (inf, inf)


def test_a_frame_of_an_older_writer_without_optional_fields_or_rows_is_read():
    asked = read_all(encode_frame(RequestFrame(router=b"r", frame=1, reply=0, dtype="float32", shape=[0, 5])))
    assert (asked.rows.shape, len(asked.deadlines_s)) == ((0, 5), 0)


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
        (NO_BYTES | {"shape": [2**40, 0]}, "has at most 16384 rows"),
        (NO_BYTES | {"shape": [1, 0, 2**62, 2**62]}, "shape"),
        (NO_BYTES | {"shape": [1, 0, *[1] * 70]}, "shape"),
        (NO_BYTES | {"shape": [0, 1], "router": b"r" * 65}, "identity of 65 bytes: at most 64"),
    ],
)
def test_a_frame_whose_parts_contradict_one_another_or_claim_more_than_its_bytes_is_refused(change, words):
    frame = msgspec.structs.replace(request([[1, 2, 3], [4, 5, 6]], dtype="float32"), **change)
    with pytest.raises(UnknownFrame, match=words):
        read_all(encode_frame(frame))


@pytest.mark.parametrize("value", [None, b"", b"\x01", b"\x02abc", b"{}", encode_frame(request(["a"]))[:-3]])
def test_bytes_that_are_no_frame_are_refused(value):
    with pytest.raises(UnknownFrame):
        read_all(value)


def test_an_extension_type_is_no_part_of_a_frame():
    extension = msgspec.msgpack.Ext(5, b"")
    for decode, fields in ((decode_output, [b"r", 1, 0, [extension]]), (read_all, [b"r", 1, 0, "json"])):
        frame = bytes([FRAME_VERSION]) + msgspec.msgpack.encode([*fields, [1], b"", [extension]])
        with pytest.raises(UnknownFrame, match="extension type 5"):
            decode(frame)


def piece_of(outputs, failed=(), row0=5):
    return OutputFrame(router=ROUTER, frame=1, row0=row0, outputs=outputs, failed=list(failed))


def test_a_piece_that_fits_is_one_record():
    piece = piece_of([1, 2])
    assert records_of(piece) == [encode_frame(piece)]


@pytest.mark.parametrize("rows", [2, 3, 7, 64])
def test_a_large_piece_is_halved_until_it_fits(rows):
    failed = [FailedRow(5 + row, "error", "why") for row in range(0, rows, 5)]
    outputs = [None if row % 5 == 0 else f"{row}" * 40 for row in range(rows)]
    piece = piece_of(outputs, failed)
    records = records_of(piece, max_bytes=150)
    assert all(len(record) <= 150 for record in records)
    assert rows_of(map(decode_output, records)) == rows_of([piece])


def test_one_output_too_large_for_a_record_fails_its_row_only():
    records = records_of(piece_of([1, "x" * 1000, 3]), max_bytes=300)
    assert rows_of(map(decode_output, records)) == {(1, 5): [1], (1, 6): ["error"], (1, 7): [3]}
