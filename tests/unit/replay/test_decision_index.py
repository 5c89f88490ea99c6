"""Decisions on disk: the first of a query counts, for as long as routers remember it."""

import pytest

from clipper_agents.replay.decision_index import DecisionIndex
from clipper_topics.logged_records import LoggedRecord

HORIZON_MS = 10_000


@pytest.fixture
def index(tmp_path):
    found = DecisionIndex(tmp_path / "index", HORIZON_MS / 1000)
    yield found
    found.close()


def logged(offset, value=None, **changes):
    return LoggedRecord(offset, value or b"value %d" % offset, **({"msgpack": False} | changes))


def found(index, *wanted):
    return [known and (known.name, known.logged.offset, known.late) for known in index.find(wanted)]


def test_nothing_is_known_and_no_file_is_made_before_something_is_added(index, tmp_path):
    assert found(index, ("a", 0)) == [None]
    assert index.credits(["a"]) == {"a": None}
    index.credit({})
    assert not (tmp_path / "index").exists()


def test_of_two_decisions_about_a_query_the_first_counts_also_within_one_list(index):
    index.add([("a", 0, logged(1)), ("b", 1, logged(2)), ("a", 2, logged(3))])
    index.add([("b", 3, logged(4))])
    assert found(index, ("a", 5), ("b", 5), ("c", 5)) == [("a", 1, False), ("b", 2, False), None]


def test_what_was_logged_comes_back_as_it_was(index):
    one = logged(7, b"\x81", msgpack=True, audited=True)
    index.add([("a", 0, one)])
    assert index.find([("a", 0)])[0].logged == one


def test_a_decision_is_late_when_it_is_older_than_the_horizon(index):
    index.add([("a", 0, logged(1))])
    assert found(index, ("a", HORIZON_MS), ("a", HORIZON_MS + 1)) == [("a", 1, False), ("a", 1, True)]


def test_another_decision_after_the_horizon_is_a_second_one_and_a_repetition_is_not(index):
    index.add([("a", 0, logged(1, b"x"))])
    index.add([("a", HORIZON_MS + 1, logged(2, b"x")), ("a", HORIZON_MS + 2, logged(3, b"y"))])
    index.add([("a", HORIZON_MS + 3, logged(4, b"z")), ("a", 3 * HORIZON_MS, logged(5, b"w"))])
    assert found(index, ("a", HORIZON_MS)) == [("a", 1, False)]
    assert found(index, ("a", HORIZON_MS + 5)) == [("a\x002", 3, False)]
    assert found(index, ("a", 3 * HORIZON_MS + 5)) == [("a\x003", 5, False)]
    assert found(index, ("a", 9 * HORIZON_MS)) == [("a\x003", 5, True)]


def test_a_credit_belongs_to_one_decision(index):
    index.add([("a", 0, logged(1))])
    index.credit({"a": 5})
    assert index.credits(["a", "a\x002"]) == {"a": 5, "a\x002": None}
