import numpy as np
import pytest

from clipper_stream.evaluation.sequential.sequential_dr import RatioQuantile


@pytest.mark.parametrize("quantile", [0.0, 0.01, 0.05, 0.3])
def test_it_is_the_quantile_read_low_by_two_percent_at_most(quantile):
    importances = np.exp(np.random.default_rng(3).normal(0.0, 1.0, 5_000))
    ratio, ratios = RatioQuantile(quantile), []
    for number, importance in enumerate(importances.tolist(), 1):
        ratio.add(importance)
        ratios.append(min(1.0, 1.0 / importance))
        if number % 97 == 0:
            ratio.renew()
            exact = np.quantile(ratios, quantile, method="lower")
            assert exact / 2 ** (1 / 32) * (1 - 1e-9) <= ratio.value
            assert np.mean(np.asarray(ratios) < ratio.value) <= quantile


def test_it_rises_again_when_low_ratios_become_rare():
    ratio = RatioQuantile(0.1)
    for importance in [8.0] * 10 + [1.0] * 200:
        ratio.add(importance)
    ratio.renew()
    assert ratio.value == 1.0


def test_the_largest_importance_has_a_bin():
    ratio = RatioQuantile(0.0)
    ratio.add(1e300)
    ratio.renew()
    assert 0.0 < ratio.value < 1e-11
