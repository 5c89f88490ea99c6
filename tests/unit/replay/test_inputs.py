"""The input of a logged query as an export has it."""

import pytest
from builders.kafka import record

from clipper_agents.replay.inputs import _text
from clipper_agents.replay.wire import LeanQuery, ListDecoder


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b'"input": [1], "inputs": null', '{"input":[1]}'),
        (b'"input": null, "inputs": [[1]]', '{"inputs":[[1]]}'),
        (b'"input": null', '{"input":null}'),
        (b'"inputs": null', None),
    ],
)
def test_null_beside_the_other_of_input_and_inputs_is_absent(said, text):
    (query,) = ListDecoder(LeanQuery).decode([record(0, b'{"application": "a", ' + said + b"}")])
    assert _text(query) == text
