import asyncio
from types import SimpleNamespace

import numpy as np
from aiokafka import TopicPartition
from builders.kafka import record
from builders.past_logs import CATALOGUE, FakeLogReader

from clipper_agents.replay.inputs import InputReader

# What a query says, and its input; null beside the other of `input` and `inputs` is absent.
INPUTS = {
    b'{"application": "a", "input": [1], "inputs": null}': '{"input":[1]}',
    b'{"application": "a", "input": null, "inputs": [[1]]}': '{"inputs":[[1]]}',
    b'{"application": "a", "input": null}': '{"input":null}',
    b'{"application": "a", "inputs": null}': None,
    b"{": None,
}


def test_the_input_of_each_decision_is_read_whatever_their_order():
    queries = TopicPartition(CATALOGUE.queries, 1)
    log = [record(offset, value, topic=queries.topic, partition=1) for offset, value in enumerate(INPUTS)]
    reader = InputReader(FakeLogReader({queries: log}), CATALOGUE, 1)
    offsets, texts = np.array([3, -1, 4, 0, 99, 2, 1]), [*INPUTS.values()]
    found = asyncio.run(reader.of(SimpleNamespace(query_offset=offsets)))
    assert found == (texts[3], None, texts[4], texts[0], None, texts[2], texts[1])
    assert asyncio.run(reader.of(SimpleNamespace(query_offset=np.array([-1])))) == (None,)
