"""Decisions on disk come back as they were; which of them a feedback is about is told in `test_log_stories.py`."""

import pytest

from clipper_agents.replay.decision_index import DecisionIndex
from clipper_topics.logged_records import LoggedRecord

ONE = LoggedRecord(7, b"\x81", msgpack=True, audited=True)


@pytest.fixture
def index(tmp_path):
    found = DecisionIndex(tmp_path / "index", 10.0)
    yield found
    found.close()


def test_nothing_is_known_and_no_file_is_made_before_something_is_added(index, tmp_path):
    assert (index.find([("a", None, 0)]), index.first(["a"])) == ([None], [None])
    assert index.credits([1]) == {1: None}
    index.credit({})
    assert not (tmp_path / "index").exists()


def test_what_was_logged_comes_back_as_it_was(index):
    index.add([("a", ONE)])
    assert index.first(["a", "b"]) == [ONE, None]


def test_a_credit_belongs_to_one_decision(index):
    index.add([("a", ONE)])
    index.credit({7: 5})
    assert index.credits([7, 8]) == {7: 5, 8: None}
