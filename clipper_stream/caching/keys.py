"""Keys of the prediction cache: 8 bytes for the model version, 16 for the row.

Rules of this file:
- Other model bytes, another dtype or another row shape give another key: an entry can be missed, never be wrong.
- Keys outlive the process (the cache is on disk), so nothing here depends on the process's hash seed.
"""

import hashlib
import marshal
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from clipper_stream.errors import InvalidInput

DIGEST_BYTES = 8

_MARSHAL_FORMAT = 2  # later formats write shared objects as references, so that equal rows could differ


def version_digest(ref: str, sha256: str | None) -> bytes:
    """Eight bytes that stand for a model version and the bytes it was loaded from.

    Args:
        ref: Model reference, `name:version`.
        sha256: Digest of the model file in hexadecimal; None when there is no file.

    >>> version_digest("svm:1", "00ff") == version_digest("svm:1", "00fe")
    False
    """
    return hashlib.blake2b(f"{ref}\n{sha256 or ''}".encode(), digest_size=DIGEST_BYTES).digest()


def row_hashes(rows: NDArray[np.generic] | Sequence[Any]) -> list[bytes]:
    """One 128-bit hash a row, of dtype, shape and bytes; a key is a version's digest and the hash of a row.

    Args:
        rows: A matrix with the rows on its first axis, or a sequence of arrays, texts, bytes or JSON values.

    Raises:
        InvalidInput: a row is no number, text, bytes or JSON value, or the matrix has no rows axis.

    >>> hashes = row_hashes(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]))
    >>> len(hashes[0]), hashes[0] == hashes[1], hashes[0] == hashes[2]
    (16, False, True)

    Source: XXH3, https://github.com/Cyan4973/xxHash; not keyed against an adversary who searches for collisions.
    """
    if isinstance(rows, np.ndarray):
        return _matrix_hashes(rows)
    return [_row_hash(row) for row in rows]


def _matrix_hashes(matrix: NDArray[np.generic]) -> list[bytes]:
    """Hash the bytes of each row, seeded by dtype and row shape."""
    if matrix.ndim == 0 or matrix.dtype.hasobject:
        raise InvalidInput(
            f"an array of shape {matrix.shape} and dtype {matrix.dtype} has no rows of plain numbers: "
            "give numbers with the rows on the first axis"
        )
    count = len(matrix)
    seed = _seed(matrix.dtype, matrix.shape[1:])
    data = matrix.tobytes()
    width = len(data) // max(1, count)
    hashed = xxhash.xxh3_128_digest
    return [hashed(data[row * width : (row + 1) * width], seed) for row in range(count)]


@lru_cache(maxsize=256)  # as many input specs at a time; computing it costs more than hashing a small row
def _seed(dtype: np.dtype[np.generic], row_shape: tuple[int, ...]) -> int:
    return xxhash.xxh3_64_intdigest(f"{dtype.str}{row_shape}".encode())


def _row_hash(row: Any) -> bytes:
    """Hash the row's value and types: 1, 1.0, True and "1" are four keys."""
    if isinstance(row, np.ndarray):
        return _matrix_hashes(row[np.newaxis])[0]
    try:
        return xxhash.xxh3_128_digest(marshal.dumps(row, _MARSHAL_FORMAT))
    except ValueError as error:
        raise InvalidInput(f"a row of type {type(row).__name__} is no JSON value: {error}") from error
