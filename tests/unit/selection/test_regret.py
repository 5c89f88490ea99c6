"""Mean regret of ten runs on steady losses of 0 and 1, within what each paper says; seeds are fixed."""

from math import log, sqrt

import pytest
from builders.bandits import regret_of

from clipper_stream.selection.policies.thompson import Thompson
from clipper_stream.selection.policies.tsallis_inf import TsallisInf

MEANS = {"a:1": 0.1, "b:1": 0.3, "c:1": 0.3}
K, T = 3, 1_000
UNIFORM = T * (sum(MEANS.values()) / K - 0.1)
"""Of a policy that learns nothing."""
KL = 0.3 * log(0.3 / 0.1) + 0.7 * log(0.7 / 0.9)


@pytest.mark.parametrize(
    ("policy", "bound", "of_uniform"),
    [
        # Theorem 1 of Zimmert and Seldin 2021 bounds the expectation against anybody
        (TsallisInf(), 4 * sqrt(K * T) + 1, 0.25),
        # Lai and Robbins: gap / kl(worse, best) ln T for each, to first order, and a constant for the start
        (Thompson(), 1.5 * 2 * 0.2 / KL * log(T) + 5.0, 0.5),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_regret_stays_within_the_bound_of_the_paper(policy, bound, of_uniform):
    regrets = [regret_of(policy, MEANS, T, seed) for seed in range(10)]
    assert sum(regrets) / 10 <= min(bound, of_uniform * UNIFORM)
