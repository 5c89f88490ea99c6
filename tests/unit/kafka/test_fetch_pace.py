import pytest

from clipper_agents.kafka.broker_tasks import MOST_PAUSE_S, OBJECTIVE_SHARE, PAUSE_A_RECORD_S, FetchPace


def pause_s(records, *objectives_s):
    pace = FetchPace()
    pace.keep(objectives_s)
    pace.records = records
    return pace.pause_s()


def test_what_comes_one_by_one_is_fetched_at_once():
    assert FetchPace().pause_s() == pause_s(0) == pause_s(1) == 0.0


def test_the_wait_grows_with_the_records_of_the_round_before():
    assert pause_s(101) == pytest.approx(100 * PAUSE_A_RECORD_S)
    assert pause_s(100_000) == MOST_PAUSE_S


@pytest.mark.parametrize(
    ("objectives_s", "most_s"),
    [([0.02, None, 10.0], 0.02 * OBJECTIVE_SHARE), ([None, 10.0], MOST_PAUSE_S), ([], MOST_PAUSE_S)],
)
def test_it_is_a_share_of_the_tightest_objective_at_most(objectives_s, most_s):
    assert pause_s(100_000, *objectives_s) == pytest.approx(most_s)
