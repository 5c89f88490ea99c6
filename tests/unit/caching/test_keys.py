import subprocess
import sys

import numpy as np
import pytest

from clipper_stream.caching.cache import row_hashes, version_digest
from clipper_stream.errors import InvalidInput

MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_another_name_version_or_file_is_another_digest():
    digests = {version_digest(ref, sha256) for ref in ("svm:1", "svm:2", "svm:11") for sha256 in (None, "1", "2")}
    assert len(digests) == 9
    assert {len(digest) for digest in digests} == {8}


def test_equal_rows_have_equal_keys_wherever_they_stand_and_however_they_were_built():
    hashes = row_hashes(MATRIX)
    assert len(set(hashes)) == 4
    assert row_hashes(MATRIX[2:3]) == hashes[2:3]
    assert row_hashes(MATRIX[::2]) == hashes[::2]
    assert row_hashes(list(MATRIX)) == row_hashes(np.asfortranarray(MATRIX)) == hashes
    text = "a long text, " * 3
    assert row_hashes([[text, text]]) == row_hashes([["".join(list(text)), "".join(list(text))]])


def test_the_same_bytes_in_another_dtype_or_shape_are_another_key():
    specs = [((1, 4), "<f8"), ((1, 4), ">f8"), ((1, 8), "f4"), ((1, 2, 2), "f8"), ((1, 4), "i8"), ((1, 32), "u1")]
    matrices = [np.zeros(shape, dtype) for shape, dtype in specs]
    hashes = {row_hashes(rows)[0] for rows in [*matrices, [bytes(32)], ["\0" * 32]]}
    assert len(hashes) == len(specs) + 2


def test_no_rows_have_no_keys_and_empty_rows_have_one_each():
    assert row_hashes(np.zeros((0, 4))) == row_hashes([]) == []
    assert len(row_hashes(np.zeros((3, 0)))) == 3


def test_values_of_different_types_are_different_rows():
    rows = [1, 1.0, True, "1", b"1", None, [1], [[1]], {"1": 1}, {1: 1}, {"1": "1"}, "", [], {}, 0.0, -0.0]
    assert len(set(row_hashes(rows))) == len(rows)


def test_keys_are_the_same_in_another_process():
    hashed = "version_digest('svm:1', '00ff') + row_hashes(np.arange(4.0)[None])[0] + row_hashes([{'a': [1, 'x']}])[0]"
    script = f"from clipper_stream.caching.cache import *; import numpy as np; print(({hashed}).hex())"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    here = version_digest("svm:1", "00ff") + row_hashes(np.arange(4.0)[None])[0] + row_hashes([{"a": [1, "x"]}])[0]
    assert other == here.hex()


@pytest.mark.parametrize(
    "rows",
    [[object()], [{1, object()}], np.array(3.0), np.array([object()])],
    ids=["object", "set", "scalar", "objects"],
)
def test_what_is_no_plain_value_is_refused(rows):
    with pytest.raises(InvalidInput):
        row_hashes(rows)
