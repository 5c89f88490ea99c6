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


def logged(offset, output=None, application="app"):
    said = {"query_id": "a", "application": application, "output": offset if output is None else output}
    return LoggedRecord(offset, msgspec.json.encode(said), msgpack=False)


def found(index, *wanted, application=None):
    known = index.find([(query_id, application, at_ms) for query_id, at_ms in wanted])
    return [one and (one.logged.offset, one.late) for one in known]


def test_nothing_is_known_and_no_file_is_made_before_something_is_added(index, tmp_path):
    assert found(index, ("a", 0)) == [None]
    assert index.credits([1]) == {1: None}
    index.credit({})
    assert not (tmp_path / "index").exists()


def test_of_two_decisions_about_a_query_the_first_counts_also_within_one_list(index):
    index.add([("a", 0, logged(1)), ("b", 1, logged(2)), ("a", 2, logged(3))])
    index.add([("b", 3, logged(4))])
    assert found(index, ("a", 5), ("b", 5), ("c", 5)) == [(1, False), (2, False), None]


def test_what_was_logged_comes_back_as_it_was(index):
    one = LoggedRecord(7, b"\x81", msgpack=True, audited=True)
    index.add([("a", 0, one)])
    assert index.find([("a", None, 0)])[0].logged == one


def test_a_decision_is_late_when_it_is_older_than_the_horizon(index):
    index.add([("a", 0, logged(1))])
    assert found(index, ("a", HORIZON_MS), ("a", HORIZON_MS + 1)) == [(1, False), (1, True)]


def test_another_decision_after_the_horizon_is_a_second_one_and_a_repetition_is_not(index):
    index.add([("a", 0, logged(1, "x"))])
    index.add([("a", HORIZON_MS + 1, logged(2, "x")), ("a", HORIZON_MS + 2, logged(3, "y"))])
    index.add([("a", HORIZON_MS + 3, logged(4, "z")), ("a", 3 * HORIZON_MS, logged(5, "w"))])
    assert found(index, ("a", HORIZON_MS)) == [(1, False)]
    assert found(index, ("a", HORIZON_MS + 5)) == [(3, False)]
    assert found(index, ("a", 3 * HORIZON_MS + 5)) == [(5, False)]
    assert found(index, ("a", 9 * HORIZON_MS)) == [(5, True)]


def test_a_credit_belongs_to_one_decision(index):
    index.add([("a", 0, logged(1))])
    index.credit({1: 5})
    assert index.credits([1, 2]) == {1: 5, 2: None}


def test_the_decisions_of_two_applications_under_one_id_are_two(index):
    index.add([("a", 0, logged(1)), ("a", 1, logged(2, application="other")), ("a", 2, logged(3, application="other"))])
    asked = [("a", 5), ("a", HORIZON_MS + 1)]
    assert found(index, *asked, application="app") == [(1, False), (1, True)]
    assert found(index, *asked, application="other") == [(2, False), (2, False)]
    assert found(index, *asked) == [(1, False), (2, False)], "the oldest that is no more than a horizon older"
    assert found(index, *asked, application="third") == [None, None]
