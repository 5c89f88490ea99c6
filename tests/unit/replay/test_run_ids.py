from clipper_agents.replay.run_ids import NewIds, new_run, same_id
from clipper_topics.query import ID_CHARACTERS
from clipper_topics.query_ids import partition_of


def test_the_same_id_is_the_old_one():
    assert same_id("3-41", 0) == "3-41"


def test_an_id_that_would_be_too_long_is_a_digest_that_still_names_its_partition():
    ids, long = NewIds("r1"), "2-" + "x" * (ID_CHARACTERS - 2)
    assert len(ids(long, 2)) <= ID_CHARACTERS
    assert partition_of(ids(long, 2)) == 2
    assert ids(long, 2) == ids(long, 2) != ids(long[:-1] + "y", 2)


def test_two_runs_have_different_names():
    assert new_run() != new_run()
    assert "~" not in new_run()
