"""Decisions on disk: the first of a query counts, for as long as routers remember it."""

import msgspec
import pytest

from clipper_agents.replay.decision_index import DecisionIndex
from clipper_topics.logged_records import LoggedRecord

HORIZON_MS = 10_000


@pytest.fixture
def index(tmp_path):
    found = DecisionIndex(tmp_path / "index", HORIZON_MS / 1000)
    yield found
    found.close()


def logged(offset, at_ms=0, application="app"):
    said = {"query_id": "a", "application": application, "output": offset, "queried_at_ms": at_ms}
    return LoggedRecord(offset, msgspec.json.encode(said), msgpack=False)


def found(index, *times_ms, query_id="a", application=None):
    known = index.find([(query_id, application, at_ms) for at_ms in times_ms])
    return [one and one.offset for one in known]


def test_nothing_is_known_and_no_file_is_made_before_something_is_added(index, tmp_path):
    assert found(index, 0) == [None]
    assert index.credits([1]) == {1: None}
    index.credit({})
    assert not (tmp_path / "index").exists()


def test_of_two_decisions_about_a_query_the_first_counts_also_within_one_list(index):
    index.add([("a", logged(1)), ("b", logged(2)), ("a", logged(3))])
    index.add([("b", logged(4))])
    assert [found(index, 5, query_id=name) for name in "abc"] == [[1], [2], [None]]


def test_what_was_logged_comes_back_as_it_was(index):
    one = LoggedRecord(7, b"\x81", msgpack=True, audited=True)
    index.add([("a", one)])
    assert index.first(["a", "b"]) == [one, None]


def test_a_credit_belongs_to_one_decision(index):
    index.add([("a", logged(1))])
    index.credit({1: 5})
    assert index.credits([1, 2]) == {1: 5, 2: None}


def test_the_decisions_of_two_applications_under_one_id_are_two(index):
    index.add([("a", logged(number, number, name)) for number, name in ((1, "app"), (2, "other"), (3, "other"))])
    expected = {"app": [1, None], "other": [2, 2], None: [1, 2], "third": [None, None]}
    assert {name: found(index, 5, HORIZON_MS + 2, application=name) for name in expected} == expected
