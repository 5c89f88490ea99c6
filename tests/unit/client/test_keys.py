"""Keys and partitions of queries are those that any other client gives them."""

import ctypes

import numpy as np
import pytest
from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from clipper_stream.client.client_records import partition_for, plain, query_key
from clipper_stream.client.errors import InvalidQuery
from clipper_topics.query import Query

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = st.recursive(
    SCALARS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ENDLESS: list = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("key", "hashed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_the_hash_is_that_of_the_java_client(key, hashed):
    assert ctypes.c_int32(murmur2(key)).value == hashed
    assert partition_for(key, 7) == (hashed & 0x7FFFFFFF) % 7


def key_of(**query):
    return query_key(Query(application="a", **query))


def test_the_key_of_a_query_is_its_context_or_a_digest_of_its_input_whatever_the_order_of_fields():
    assert key_of(input=1, context="Jürgen") == "Jürgen".encode()
    assert key_of(input={"x": 1, "y": 2}) == key_of(input={"y": 2, "x": 1}) != key_of(input={"x": 2, "y": 1})
    assert key_of(inputs=[1, 2]) == query_key(Query(application="b", input=[1, 2]))


@given(JSON_VALUES)
def test_any_input_that_json_can_hold_has_a_printable_key(value):
    key = key_of(input=plain(value))
    assert len(key) == 16
    assert key.decode().isalnum()


def test_what_has_no_bytes_or_what_no_record_holds_is_refused():
    for query in ({"input": "\ud800"}, {"input": {(1,): 2}}, {"input": 1, "context": "\ud800"}):
        with pytest.raises(InvalidQuery, match="give text and numbers"):
            key_of(**query)
    for value, said in (([object()], "a value of type object cannot be sent"), (ENDLESS, "recursion")):
        with pytest.raises(InvalidQuery, match=said):
            plain(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.eye(2, dtype=np.float32), [[1.0, 0.0], [0.0, 1.0]]),
        ({"of": [np.int64(3), np.float64(0.5), *np.array([True])]}, {"of": [3, 0.5, True]}),
        *[(kind(b"\x00\x01"), {"base64": "AAE="}) for kind in (bytes, bytearray, memoryview)],
    ],
)
def test_arrays_become_lists_numpy_scalars_numbers_and_bytes_base64(value, expected):
    assert plain(value) == expected
