"""Rows of the selection table that are false."""

import struct

import msgspec


def flipped(row):
    """The row with another last bit in one sum."""
    first, *others = row.totals
    (bits,) = struct.unpack("<q", struct.pack("<d", first.weighted_loss))
    (loss,) = struct.unpack("<d", struct.pack("<q", bits ^ 1))
    return msgspec.structs.replace(row, totals=[msgspec.structs.replace(first, weighted_loss=loss), *others])
