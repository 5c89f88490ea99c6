import numpy as np
import pytest

from clipper_loadgen.datasets import Dataset
from clipper_loadgen.script import write_script
from clipper_loadgen.workload import Workload
from clipper_topics import codec
from clipper_topics.codec import MSGPACK_HEADERS
from clipper_topics.query_ids import partition_of

ROWS = {
    "floats": [[0.5, -1.25, 3.0], [1e-3, 2.0, 0.0]],
    "ints": [[1, 2, 3], [255, 0, -1]],
    "nested": [[[1.5], [2.5]], [[0.5], [0.25]]],
    "text": ["grüße", 'quo"te'],
    "base64": [{"base64": "AAE="}, {"base64": ""}],
    "many": [np.arange(16.0).tolist(), np.arange(70_000.0).tolist()],
}


def script_of(rows, encoding="json", contexts=None, partitions=12):
    workload = Workload(rows=[0, 1, 0], contexts=contexts, labels=None)
    return write_script(
        workload, Dataset(rows=rows), applications=["digits"], encoding=encoding, partitions=partitions, run="0123abcd"
    )


def decoded(script, query, encoding):
    return codec.queries.decode(script.value(query), MSGPACK_HEADERS if encoding == "msgpack" else [])


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize("contexts", [None, [3, 12345, 3]])
@pytest.mark.parametrize("kind", ROWS)
def test_the_pieces_of_a_query_are_a_query(encoding, contexts, kind):
    script = script_of(ROWS[kind], encoding, contexts)
    for query, row in enumerate([0, 1, 0]):
        found = decoded(script, query, encoding)
        assert found.query_id == script.query_id(query)
        assert found.application == "digits"
        assert found.context == (None if contexts is None else f"c{contexts[query]}")
        assert np.array_equal(found.input, ROWS[kind][row]) or np.allclose(found.input, ROWS[kind][row], rtol=1e-7)


def test_an_id_names_its_partition_and_its_query():
    script = script_of(ROWS["ints"])
    for query in range(3):
        query_id = script.query_id(query)
        assert partition_of(query_id) == script.partitions[query]
        assert script.query_of(query_id) == query


@pytest.mark.parametrize("query_id", ["", "3-41", "0-ffffabcd00000000", "0-0123abcd00000003", "0-0123abcdnonsense"])
def test_an_id_of_somebody_else_is_no_query_of_ours(query_id):
    assert script_of(ROWS["ints"]).query_of(query_id) is None


def test_the_key_is_the_context_or_else_a_digest_of_the_input():
    assert script_of(ROWS["ints"], contexts=[1, 2, 1]).keys == [b"c1", b"c2", b"c1"]
    first, second, third = script_of(ROWS["ints"]).keys
    assert first == third != second
