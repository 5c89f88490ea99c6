import numpy as np

from clipper_stream.evaluation.sequential.rejection_sampling import LeastRatio


def test_it_is_the_least_read_low_by_two_percent_at_most():
    ratio, least = LeastRatio(), 1.0
    for number, importance in enumerate(np.exp(np.random.default_rng(3).normal(0.0, 1.0, 5_000)).tolist(), 1):
        ratio.add(importance)
        least = min(least, 1.0 / importance)
        if number % 97 == 0:
            ratio.renew()
            assert least / 2 ** (1 / 32) * (1 - 1e-9) <= ratio.value <= least * (1 + 1e-9)
