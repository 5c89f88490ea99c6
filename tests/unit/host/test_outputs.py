"""Pieces that are too large for a record are sent as several."""

import pytest
from builders.host import ROUTER, rows_of

from clipper_agents.host.outputs import records_of
from clipper_topics.frames import FailedRow, OutputFrame, decode_output, encode_frame


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
