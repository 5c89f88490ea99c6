import math
import re

import pytest

from clipper_topics import codec
from clipper_topics.feedback import Feedback, check_feedback
from clipper_topics.query import ID_CHARACTERS, Query, check_query


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "neither input nor inputs"),
        ({"input": 1, "inputs": [1]}, "both input .* and inputs"),
        ({"inputs": []}, "inputs is empty"),
        ({"inputs": [1] * 10_001}, "inputs has 10001 rows: give at most 10000"),
        ({"input": 1, "deadline_ms": 0}, "deadline_ms is 0: give at least 1"),
        ({"input": 1, "deadline_ms": -5}, "deadline_ms is -5"),
        ({"input": 1, "deadline_ms": math.nan}, "deadline_ms is nan"),
        ({"input": 1, "deadline_ms": math.inf}, "deadline_ms is inf"),
        ({"input": 1, "models": []}, "models is empty"),
        ({"input": 1, "query_id": ""}, "query_id has 0 characters"),
        ({"input": 1, "query_id": "x" * 257}, "query_id has 257 characters: use 1 to 256"),
        ({"input": 1, "context": ""}, "context has 0 characters"),
        ({"input": 1, "features": []}, "there are 0 features: give 1 to 16"),
        ({"input": 1, "features": [0.0] * 17}, "there are 17 features"),
        ({"input": 1, "features": [1.0, math.inf]}, "the feature inf is too large: give numbers of at most 1e"),
        ({"input": 1, "features": [math.nan]}, "the feature nan"),
        ({"input": 1, "features": [-1.1e6]}, "the feature -1.1e"),
    ],
)
def test_a_query_that_cannot_be_used_is_told_what_to_do(fields, message):
    found = check_query(Query(application="digits", **fields))
    assert found is not None
    assert re.search(message, found)


@pytest.mark.parametrize(
    "fields",
    [
        {"input": None},
        {"input": []},
        {"inputs": [None]},
        {"input": None, "inputs": [1]},
        {"input": 1, "features": [-1e6] * 16},
        {"input": 1, "deadline_ms": 1, "models": ["svm"], "query_id": "x" * ID_CHARACTERS, "context": "é"},
    ],
)
def test_a_query_that_can_be_used_passes(fields):
    assert check_query(Query(application="digits", **fields)) is None


def test_an_input_of_null_is_an_input():
    assert check_query(codec.queries.decode(b'{"application": "a", "input": null}')) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "no truth: give exactly one of label, loss, reward"),
        ({"label": 1, "loss": 0.5}, "has label and loss"),
        ({"label": None, "loss": 0.5, "reward": 0.5}, "has loss and reward"),
        ({"label": 1, "loss": 0.5, "reward": 0.5}, "has label and loss and reward"),
        ({"loss": None, "reward": None}, "has no truth"),
        ({"loss": 1.5}, "loss is 1.5"),
        ({"reward": float("nan")}, "reward is nan"),
    ],
)
def test_feedback_that_cannot_be_used_is_told_what_to_do(fields, message):
    assert message in (check_feedback(Feedback(query_id="0-1", **fields)) or "")


def test_feedback_needs_the_id_of_a_query():
    assert "query_id is empty" in (check_feedback(Feedback(query_id="", label=1)) or "")


@pytest.mark.parametrize(
    "fields", [{"label": None}, {"label": [1, 2]}, {"loss": 0.0}, {"reward": 1.0}, {"label": None, "loss": 0.5}]
)
def test_feedback_with_exactly_one_truth_passes(fields):
    assert check_feedback(Feedback(query_id="0-1", **fields)) is None
