"""What memory has no room for comes back as it was; which decision a feedback is about tells `test_log_stories.py`."""

import pytest

from clipper_agents.replay.decision_index import DecisionIndex
from clipper_agents.replay.spill_store import SpillingDict, SpillStore
from clipper_topics.logged_records import LoggedRecord


@pytest.fixture
def numbers(tmp_path):
    found = SpillingDict[int](tmp_path / "numbers", lambda value: b"%d" % value, int)
    yield found
    found.close()


def test_a_store_makes_no_file_before_something_is_written(tmp_path):
    store = SpillStore(tmp_path / "store")
    assert (bool(store), store.get([b"a", b"b"])) == (False, [None, None])
    assert not (tmp_path / "store").exists()
    store.put([(b"a", b"1"), (b"b", b"2")])
    store.delete([b"b"])
    assert (bool(store), store.get([b"a", b"b", b"c"])) == (True, [b"1", None, None])
    store.close()


def test_the_newest_values_stay_in_memory_and_the_others_are_on_disk_until_they_are_taken(numbers):
    assert numbers.take_older(["0"]) == {}
    numbers.recent.update({str(number): number for number in range(10)})
    for _ in range(2):
        numbers.spill(kept=3)
        assert (numbers.recent, bool(numbers)) == ({"7": 7, "8": 8, "9": 9}, True)
    assert numbers.older(["0", "6", "7", "x"]) == [0, 6, None, None]
    assert numbers.take_older(["0", "x"]) == {"0": 0}
    assert numbers.older(["0", "6"]) == [None, 6]


def test_an_index_makes_no_file_before_a_decision_is_added_and_a_credit_belongs_to_one(tmp_path):
    index, one = DecisionIndex(tmp_path / "index", 10.0), LoggedRecord(7, b"\x81", msgpack=True, audited=True)
    assert (index.find([("a", None, 0)]), index.first(["a"]), index.credits([1])) == ([None], [None], {1: None})
    index.credit({})
    assert not (tmp_path / "index").exists()
    index.add([("a", one)])
    assert index.first(["a", "b"]) == [one, None]
    index.credit({7: 5})
    assert index.credits([7, 8]) == {7: 5, 8: None}
    index.close()
