from clipper_agents.replay.run_ids import NewIds, new_run, same_id
from clipper_topics.query import ID_CHARACTERS
from clipper_topics.query_ids import is_offset_id


def test_the_same_id_is_the_old_one_unless_no_query_may_have_it():
    assert same_id("3-41") == "3-41"
    assert not is_offset_id(same_id("3@41"))


def test_an_id_that_would_be_too_long_is_a_digest():
    ids, long = NewIds("r1"), "x" * ID_CHARACTERS
    assert len(ids(long)) <= ID_CHARACTERS
    assert ids(long) == ids(long) != ids(long[:-1] + "y")


def test_two_runs_have_different_names():
    assert new_run() != new_run()
    assert "~" not in new_run()
