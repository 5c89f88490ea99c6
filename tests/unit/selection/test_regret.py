"""Mean regret of ten runs on steady losses of 0 and 1, within what each paper says; seeds are fixed."""

from math import log, pi, sqrt

import pytest
from builders.bandits import regret_of

from clipper_stream.selection.policies.exp3 import Exp3IX
from clipper_stream.selection.policies.thompson import Thompson
from clipper_stream.selection.policies.tsallis_inf import TsallisInf
from clipper_stream.selection.policies.ucb1 import UCB1

MEANS = {"a:1": 0.1, "b:1": 0.3, "c:1": 0.3}
K, T = 3, 1_000
UNIFORM = T * (sum(MEANS.values()) / K - 0.1)
"""Of a policy that learns nothing."""
KL = 0.3 * log(0.3 / 0.1) + 0.7 * log(0.7 / 0.9)
ETA = sqrt(2 * log(K) / (K * T))


@pytest.mark.parametrize(
    ("policy", "bound", "of_uniform"),
    [
        # Theorem 1 of Neu 2015, with probability 0.99, at eta = 2 gamma = sqrt(2 ln K / (K T))
        (Exp3IX(eta=ETA), 2 * sqrt(2 * K * T * log(K)) + (sqrt(2 * K * T / log(K)) + 1) * log(200), 0.5),
        # Theorem 1 of Zimmert and Seldin 2021 bounds the expectation against anybody
        (TsallisInf(), 4 * sqrt(K * T) + 1, 0.25),
        # Theorem 1 of Auer et al. 2002 bounds the expectation; a run deviates much less than it is wide
        (UCB1(exploration=0.0), 2 * 8 * log(T) / 0.2 + (1 + pi**2 / 3) * 0.4, 0.5),
        # Lai and Robbins: gap / kl(worse, best) ln T for each, to first order, and a constant for the start
        (Thompson(), 1.5 * 2 * 0.2 / KL * log(T) + 5.0, 0.5),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_regret_stays_within_the_bound_of_the_paper(policy, bound, of_uniform):
    regrets = [regret_of(policy, MEANS, T, seed) for seed in range(10)]
    assert sum(regrets) / 10 <= min(bound, of_uniform * UNIFORM)
