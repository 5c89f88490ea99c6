import numpy as np
import pytest

from clipper_loadgen import draws

RATE, DURATION = 200.0, 100.0
N = 20_000
SIGMAS = 4.0  # a correct generator fails one such check in 16,000 seeds; the seeds here are fixed


def bound(share, count=N):
    """So many standard deviations of a count of successes."""
    return SIGMAS * np.sqrt(count * share * (1 - share))


@pytest.mark.parametrize("kind", ["poisson", "constant"])
def test_arrivals_ascend_and_lie_inside_the_run_and_are_those_of_their_seed(kind):
    times = draws.arrival_times(kind, RATE, DURATION, seed=3)
    assert (np.diff(times) >= 0).all()
    assert 0 <= times[0] <= times[-1] < DURATION
    assert abs(len(times) - RATE * DURATION) < SIGMAS * np.sqrt(RATE * DURATION)
    assert times == draws.arrival_times(kind, RATE, DURATION, seed=3)
    assert (times == draws.arrival_times(kind, RATE, DURATION, seed=4)) is (kind == "constant")


# --- rows -----------------------------------------------------------------------------------------------------------
def test_repeats_have_the_share_asked_for_and_reach_back_evenly_over_the_recent_queries_and_no_further():
    for ratio, repeats in ((0.0, 0), (0.3, 0.3 * N), (1.0, N - 1)):
        found = N - draws.fresh_count(draws.repeated_from(N, ratio, 100, seed=0))
        assert abs(found - repeats) <= bound(ratio)
    origin = draws.repeated_from(N, 0.5, 10, seed=1)
    back = (np.arange(N) - origin)[10:]
    back = back[back > 0]
    assert back.max() == 10
    counts = np.bincount(back, minlength=11)[1:]
    chi_square = ((counts - len(back) / 10) ** 2 / (len(back) / 10)).sum()
    assert chi_square < 27.9  # 9 degrees of freedom, level 0.001


def test_a_repeat_asks_about_the_row_of_its_origin_and_fresh_queries_about_new_rows():
    origin = draws.repeated_from(500, 0.4, 50, seed=2)
    rows = draws.row_of_each(origin, 1_000, seed=3)
    fresh = [row for query, row in enumerate(rows) if origin[query] == query]
    assert len(set(fresh)) == len(fresh)
    assert all(rows[query] == rows[source] for query, source in enumerate(origin))
    assert np.bincount(draws.row_of_each(np.arange(30), 10, seed=0)).tolist() == [3] * 10, "all rows equally often"
