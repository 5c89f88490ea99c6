"""Frames between routers and hosts: one version byte, then msgpack with the matrix as raw bytes.

Rules of this file:
- A reader that meets a version it does not know raises `UnknownFrame`; it never guesses.
- Fields are only ever appended, with a default, under the same version; any other change is a new version byte.
"""

from typing import TypeVar

import msgspec

from clipper_topics.codec import no_extension

T = TypeVar("T")

FRAME_VERSION = 1


class UnknownFrame(ValueError):
    """The bytes are no frame of a version that this process knows."""


class RequestFrame(msgspec.Struct, array_like=True, kw_only=True):
    """Rows for one model version, all of one dtype and row shape."""

    router: bytes
    """Identity of the asking router process, new at each start: 8 random bytes."""
    frame: int
    """Token of the frame, 64 random bits: the hosts of this model version know it, and nobody else."""
    reply: int
    """Partition of the outputs topic that the asking router reads."""
    dtype: str
    """numpy dtype of a numeric matrix, or `text`, `bytes`, `json`: `rows` then has the rows."""
    shape: list[int]
    """Shape of the matrix, rows first; `[n]` for non-numeric rows."""
    matrix: bytes = b""
    """The matrix in C order, for a numeric dtype."""
    rows: list[object] = []
    """The rows, for a non-numeric dtype."""
    deadlines: bytes = b""
    """One little-endian float64 a row: seconds since the epoch, `inf` for none."""


class FailedRow(msgspec.Struct, array_like=True):
    """A row without an output."""

    row: int
    """Index in the request frame."""
    reason: str
    """`late` (dropped, the deadline had passed) or `error`."""
    explanation: str


class OutputFrame(msgspec.Struct, array_like=True, kw_only=True):
    """Outputs of consecutive rows of one request frame; a frame may be answered in several pieces."""

    router: bytes
    """As in the request."""
    frame: int
    """As in the request."""
    row0: int
    """Index of the first row in the request frame."""
    outputs: list[object]
    """One output a row, in order; null where the row failed."""
    failed: list[FailedRow] = []
    """The rows without an output."""


_encoder = msgspec.msgpack.Encoder()
_request = msgspec.msgpack.Decoder(RequestFrame, ext_hook=no_extension)
_output = msgspec.msgpack.Decoder(OutputFrame, ext_hook=no_extension)
_VERSION = bytes([FRAME_VERSION])


def encode_frame(frame: RequestFrame | OutputFrame) -> bytes:
    """Return the frame as bytes."""
    return _VERSION + _encoder.encode(frame)


def decode_request(data: bytes) -> RequestFrame:
    """Decode a request frame; `UnknownFrame` for another version, or bytes that are none."""
    return _decoded(data, _request)


def decode_output(data: bytes) -> OutputFrame:
    """Decode an output frame; `UnknownFrame` as `decode_request`."""
    return _decoded(data, _output)


def _decoded(data: bytes, decoder: msgspec.msgpack.Decoder[T]) -> T:
    if not data or data[0] != FRAME_VERSION:
        found = data[0] if data else "an empty value"
        message = f"frame version {found}, this process reads {FRAME_VERSION}: update the older of the two processes"
        raise UnknownFrame(message)
    try:
        return decoder.decode(memoryview(data)[1:])
    except (ValueError, RecursionError) as error:
        raise UnknownFrame(f"no {decoder.type.__name__}: {error}") from error
