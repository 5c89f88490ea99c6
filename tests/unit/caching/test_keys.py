import subprocess
import sys

import numpy as np
import pytest

from clipper_stream.caching.keys import KEY_BYTES, row_keys, version_digest
from clipper_stream.errors import InvalidInput

DIGEST = version_digest("svm:1", "00ff")


def test_a_key_is_the_digest_and_sixteen_bytes():
    (key,) = row_keys(DIGEST, ["text"])
    assert len(key) == KEY_BYTES
    assert key.startswith(DIGEST)


def test_another_name_version_or_file_is_another_digest():
    digests = {version_digest(ref, sha256) for ref in ("svm:1", "svm:2", "svm:11") for sha256 in (None, "1", "2")}
    assert len(digests) == 9
    assert {len(digest) for digest in digests} == {8}


def test_equal_rows_have_equal_keys_wherever_they_stand():
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    keys = row_keys(DIGEST, matrix)
    assert len(set(keys)) == 4
    assert row_keys(DIGEST, matrix[2:3]) == keys[2:3]
    assert row_keys(DIGEST, list(matrix)) == keys


def test_memory_order_does_not_matter():
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert row_keys(DIGEST, np.asfortranarray(matrix)) == row_keys(DIGEST, matrix)
    assert row_keys(DIGEST, matrix[::2]) == row_keys(DIGEST, matrix[[0, 2]])


def test_the_same_bytes_in_another_dtype_or_shape_are_another_key():
    specs = [((1, 4), "<f8"), ((1, 4), ">f8"), ((1, 8), "f4"), ((1, 2, 2), "f8"), ((1, 4), "i8"), ((1, 32), "u1")]
    matrices = [np.zeros(shape, dtype) for shape, dtype in specs]
    keys = {row_keys(DIGEST, rows)[0] for rows in [*matrices, [bytes(32)], ["\0" * 32]]}
    assert len(keys) == len(specs) + 2


def test_no_rows_have_no_keys_and_empty_rows_have_one_each():
    assert row_keys(DIGEST, np.zeros((0, 4))) == []
    assert row_keys(DIGEST, []) == []
    assert len(row_keys(DIGEST, np.zeros((3, 0)))) == 3


def test_values_of_different_types_are_different_rows():
    rows = [1, 1.0, True, "1", b"1", None, [1], [[1]], {"1": 1}, {1: 1}, {"1": "1"}, "", [], {}, 0.0, -0.0]
    assert len(set(row_keys(DIGEST, rows))) == len(rows)


def test_a_row_of_the_same_value_has_the_same_key_however_it_was_built():
    text = "a long text, " * 3
    shared = [text, text]
    apart = ["".join(list(text)), "".join(list(text))]
    assert row_keys(DIGEST, [shared]) == row_keys(DIGEST, [apart])


def test_keys_are_the_same_in_another_process():
    script = (
        "from clipper_stream.caching.keys import *; import numpy as np;"
        "d = version_digest('svm:1', '00ff');"
        "print((row_keys(d, np.arange(4.0)[None])[0] + row_keys(d, [{'a': [1, 'x']}])[0]).hex())"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    here = row_keys(DIGEST, np.arange(4.0)[None])[0] + row_keys(DIGEST, [{"a": [1, "x"]}])[0]
    assert other == here.hex()


@pytest.mark.parametrize(
    "rows",
    [[object()], [{1, object()}], np.array(3.0), np.array([object()])],
    ids=["object", "set", "scalar", "objects"],
)
def test_what_is_no_plain_value_is_refused(rows):
    with pytest.raises(InvalidInput):
        row_keys(DIGEST, rows)
