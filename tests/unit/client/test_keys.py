import ctypes

import numpy as np
import pytest
from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from clipper_stream.client.errors import InvalidQuery
from clipper_stream.client.keys import partition_for, plain, query_key
from clipper_topics.query import Query

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("key", "hashed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_the_hash_is_that_of_the_java_client(key, hashed):
    assert ctypes.c_int32(murmur2(key)).value == hashed
    assert partition_for(key, 7) == (hashed & 0x7FFFFFFF) % 7


def test_the_key_of_a_query_with_a_context_is_the_context():
    assert query_key(Query(application="a", input=1, context="Jürgen")) == "Jürgen".encode()


def test_equal_inputs_have_equal_keys_whatever_the_order_of_their_fields():
    keys = {query_key(Query(application="a", input=value)) for value in ({"x": 1, "y": 2}, {"y": 2, "x": 1})}
    assert len(keys) == 1
    assert query_key(Query(application="a", input={"x": 2, "y": 1})) not in keys
    assert query_key(Query(application="a", inputs=[1, 2])) == query_key(Query(application="b", input=[1, 2]))


@given(JSON_VALUES)
def test_any_input_that_json_can_hold_has_a_printable_key(value):
    key = query_key(Query(application="a", input=plain(value)))
    assert len(key) == 16
    assert key.decode().isalnum()


@pytest.mark.parametrize("query", [{"input": "\ud800"}, {"input": {(1,): 2}}, {"input": 1, "context": "\ud800"}])
def test_what_has_no_bytes_is_refused(query):
    with pytest.raises(InvalidQuery, match="give text and numbers"):
        query_key(Query(application="a", **query))


def test_arrays_become_lists_and_numpy_scalars_numbers():
    value = {"rows": np.eye(2, dtype=np.float32), "of": [np.int64(3), np.float64(0.5), *np.array([True])]}
    assert plain(value) == {"rows": [[1.0, 0.0], [0.0, 1.0]], "of": [3, 0.5, True]}


@pytest.mark.parametrize("value", [b"\x00\x01", bytearray(b"\x00\x01"), memoryview(b"\x00\x01")])
def test_bytes_become_base64(value):
    assert plain(value) == {"base64": "AAE="}


def test_a_value_that_no_record_holds_is_refused_with_its_type():
    with pytest.raises(InvalidQuery, match="a value of type object cannot be sent: give numbers"):
        plain([object()])


def test_a_list_in_itself_is_refused():
    value = []
    value.append(value)
    with pytest.raises(InvalidQuery):
        plain(value)
