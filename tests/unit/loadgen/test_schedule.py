import numpy as np
import pytest

from clipper_loadgen.schedule import arrival_times, draw_delays
from clipper_stream.errors import UnknownName

RATE, DURATION = 200.0, 100.0
MEAN = RATE * DURATION
SIGMAS = 4.0  # a correct generator fails one such check in 16,000 seeds; the seeds here are fixed


def test_poisson_arrivals_have_the_rate():
    counts = [len(arrival_times("poisson", RATE, DURATION, seed)) for seed in range(20)]
    assert abs(np.mean(counts) - MEAN) < SIGMAS * np.sqrt(MEAN / len(counts))


def test_poisson_counts_vary_as_their_mean():
    counts = np.array([len(arrival_times("poisson", RATE, 1.0, seed)) for seed in range(2_000)])
    # the variance of a sample variance of n Poisson counts is about (2 m^2 + m) / n
    assert abs(counts.var(ddof=1) - RATE) < SIGMAS * np.sqrt((2 * RATE**2 + RATE) / len(counts))


def test_poisson_gaps_are_exponential():
    gaps = np.sort(np.diff(arrival_times("poisson", RATE, DURATION, seed=1)))
    expected = 1 - np.exp(-RATE * gaps)
    distance = np.abs(expected - np.arange(1, len(gaps) + 1) / len(gaps)).max()
    assert distance < 1.95 / np.sqrt(len(gaps))  # Kolmogorov-Smirnov, level 0.001


@pytest.mark.parametrize("kind", ["poisson", "constant"])
def test_arrivals_ascend_and_lie_inside_the_run(kind):
    times = arrival_times(kind, RATE, DURATION, seed=3)
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert times[-1] < DURATION


@pytest.mark.parametrize("kind", ["poisson", "constant"])
def test_the_same_seed_gives_the_same_times(kind):
    first, second = (arrival_times(kind, RATE, 10.0, seed=5) for _ in range(2))
    assert (first == second).all()


def test_another_seed_gives_other_poisson_times():
    assert arrival_times("poisson", RATE, 1.0, seed=5)[0] != arrival_times("poisson", RATE, 1.0, seed=6)[0]


def test_constant_arrivals_are_evenly_spaced():
    times = arrival_times("constant", 50.0, 2.0, seed=0)
    assert len(times) == 100
    assert np.allclose(np.diff(times), 0.02)


def test_unknown_arrivals_are_answered_with_those_that_exist():
    with pytest.raises(UnknownName, match="constant, poisson"):
        arrival_times("bursts", RATE, DURATION, seed=0)


@pytest.mark.parametrize(
    ("kind", "variance"), [("constant", 0.0), ("exponential", 0.05**2), ("uniform", (2 * 0.05) ** 2 / 12)]
)
def test_feedback_delays_have_the_mean_and_the_spread_of_their_distribution(kind, variance):
    delays = draw_delays(kind, 0.05, 20_000, seed=2)
    assert delays.min() >= 0
    assert abs(delays.mean() - 0.05) <= SIGMAS * np.sqrt(variance / len(delays)) + 1e-12
    # fourth central moments: 9 v^2 (exponential) and 1.8 v^2 (uniform), so a spread of the variance below 3 v / sqrt(n)
    assert abs(delays.var() - variance) <= SIGMAS * 3 * variance / np.sqrt(len(delays)) + 1e-12


def test_an_unknown_distribution_is_answered_with_those_that_exist():
    with pytest.raises(UnknownName, match="constant, exponential, uniform"):
        draw_delays("gamma", 0.05, 1, seed=0)
