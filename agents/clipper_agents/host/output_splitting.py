"""Output frames as records that the broker takes: a piece that is too large is sent as several."""

from clipper_topics.frames import FailedRow, OutputFrame, encode_frame

MAX_RECORD_BYTES = 512 * 1024
"""Half of the broker's default limit (1 MiB, Kafka `message.max.bytes`), which counts a whole produce batch."""


def records_of(piece: OutputFrame, max_bytes: int = MAX_RECORD_BYTES) -> list[bytes]:
    """The piece as one record or, halved until they fit, as several.

    Args:
        piece: With at least one row.
        max_bytes: Size of a record at most. A single row that is larger fails, saying so.

    >>> piece = OutputFrame(router=b"r", frame=1, row0=0, outputs=["x" * 60, "y" * 60])
    >>> [len(record) for record in records_of(piece, max_bytes=100)]
    [71, 71]
    """
    record = encode_frame(piece)
    if len(record) <= max_bytes:
        return [record]
    if len(piece.outputs) == 1:
        return [encode_frame(_too_large(piece, len(record), max_bytes))]
    middle = piece.row0 + len(piece.outputs) // 2
    return [
        *records_of(_part(piece, piece.row0, middle), max_bytes),
        *records_of(_part(piece, middle, None), max_bytes),
    ]


def _part(piece: OutputFrame, start: int, stop: int | None) -> OutputFrame:
    stop = piece.row0 + len(piece.outputs) if stop is None else stop
    outputs = piece.outputs[start - piece.row0 : stop - piece.row0]
    failed = [failure for failure in piece.failed if start <= failure.row < stop]
    return OutputFrame(router=piece.router, frame=piece.frame, row0=start, outputs=outputs, failed=failed)


def _too_large(piece: OutputFrame, size: int, max_bytes: int) -> OutputFrame:
    words = f"the output takes {size} bytes, a record has at most {max_bytes}: give a smaller one"
    failed = [FailedRow(piece.row0, "error", words)]
    return OutputFrame(router=piece.router, frame=piece.frame, row0=piece.row0, outputs=[None], failed=failed)
