import numpy as np
import pytest

from clipper_loadgen import draws

RATE, DURATION = 200.0, 100.0
N = 20_000
SIGMAS = 4.0  # a correct generator fails one such check in 16,000 seeds; the seeds here are fixed


def bound(share, count=N):
    """So many standard deviations of a count of successes."""
    return SIGMAS * np.sqrt(count * share * (1 - share))


# --- send times -----------------------------------------------------------------------------------------------------
def test_poisson_arrivals_have_the_rate_vary_as_their_mean_and_have_exponential_gaps():
    counts = np.array([len(draws.arrival_times("poisson", RATE, 1.0, seed)) for seed in range(2_000)])
    assert abs(counts.mean() - RATE) < SIGMAS * np.sqrt(RATE / len(counts))
    # the variance of a sample variance of n Poisson counts is about (2 m^2 + m) / n
    assert abs(counts.var(ddof=1) - RATE) < SIGMAS * np.sqrt((2 * RATE**2 + RATE) / len(counts))
    gaps = np.sort(np.diff(draws.arrival_times("poisson", RATE, DURATION, seed=1)))
    distance = np.abs(1 - np.exp(-RATE * gaps) - np.arange(1, len(gaps) + 1) / len(gaps)).max()
    assert distance < 1.95 / np.sqrt(len(gaps))  # Kolmogorov-Smirnov, level 0.001


@pytest.mark.parametrize("kind", ["poisson", "constant"])
def test_arrivals_ascend_and_lie_inside_the_run_and_are_those_of_their_seed(kind):
    times = draws.arrival_times(kind, RATE, DURATION, seed=3)
    assert (np.diff(times) >= 0).all()
    assert 0 <= times[0] <= times[-1] < DURATION
    assert times == draws.arrival_times(kind, RATE, DURATION, seed=3)
    assert (times == draws.arrival_times(kind, RATE, DURATION, seed=4)) is (kind == "constant")


def test_feedback_delays_are_exponential_with_their_mean():
    delays = np.array(draws.feedback_delays(0.05, 20_000, seed=2))
    assert delays.min() >= 0
    assert abs(delays.mean() - 0.05) <= SIGMAS * 0.05 / np.sqrt(len(delays))
    # the fourth central moment is 9 v^2, so the spread of the variance is below 3 v / sqrt(n)
    assert abs(delays.var() - 0.05**2) <= SIGMAS * 3 * 0.05**2 / np.sqrt(len(delays))


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


def test_each_context_is_as_likely_as_any_other():
    drawn = np.bincount(draws.contexts_of(N, 20, seed=4), minlength=20)
    assert ((drawn - N / 20) ** 2 / (N / 20)).sum() < 43.8  # 19 degrees of freedom, level 0.001
    assert set(draws.contexts_of(100, 1, seed=0)) == {0}
