"""As in Clipper's figure 8: the best model breaks at a quarter of the queries and is repaired at half."""

import math

import pytest
from simulated_application import LATE, STALE, SimulatedApplication

from clipper_stream.selection.policies.exp3 import Exp3
from clipper_stream.selection.policies.exp4 import Exp4
from clipper_stream.selection.policy import SelectionPolicy

MODELS = ("best:1", "b:1", "c:1", "d:1", "e:1")
HEALTHY = (0.02, 0.06, 0.08, 0.10, 0.12)
BROKEN = (0.90, *HEALTHY[1:])
QUERIES = 10_000
PARTITIONS = 4
HALF_LIFE = 100.0

POLICIES = [Exp3(eta=0.2, half_life=HALF_LIFE), Exp4(half_life=HALF_LIFE)]


def lead(application: SimulatedApplication, policy: SelectionPolicy) -> float:
    """Excess loss by which the best model leads the next best one (or trails, below 0)."""
    weights = dict(application.prepared().weights)
    return math.log(weights.pop("best:1") / max(weights.values())) / policy.eta  # type: ignore[attr-defined]


def share(application: SimulatedApplication, start: int, stop: int) -> float:
    return sum(shares["best:1"] for shares in application.shares[start:stop]) / (stop - start)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_queries_leave_a_broken_model_and_come_back_to_a_repaired_one(policy, seed):
    application = SimulatedApplication(policy, MODELS, PARTITIONS, seed)
    application.run(QUERIES // 4, HEALTHY)
    assert share(application, QUERIES // 8, QUERIES // 4) > 0.5

    # Below a tenth of the weight it has to fall behind another model by log(9) / eta. It gets there at 0.9 - 0.12 a
    # feedback at least, on average, from the lead it has now; allow four standard deviations of that many losses.
    distance = lead(application, policy) + math.log(9.0) / policy.eta  # type: ignore[attr-defined]
    needed = distance / (0.90 - 0.12)
    spread = 4.0 * math.sqrt(needed * (0.90 * 0.10 + 0.12 * 0.88) / 0.5) / (0.90 - 0.12)
    diverted = QUERIES // 4 + math.ceil(LATE + STALE + needed + spread)
    application.run(QUERIES // 4, BROKEN)
    assert application.shares[diverted]["best:1"] < 0.1
    late = application.served[3 * QUERIES // 8 : QUERIES // 2]
    if policy.name == "exp3":  # then it is asked for exploration only: a binomial count and five deviations
        chance = policy.exploration / len(MODELS) + 0.001
        asked = sum(served == ("best:1",) for served in late)
        assert asked <= len(late) * chance + 5.0 * math.sqrt(len(late) * chance)

    # What it is behind now halves with every half-life of all partitions, and stops to matter below one loss.
    behind = -lead(application, policy)
    assert behind > 0.0
    returned = QUERIES // 2 + math.ceil(LATE + STALE + PARTITIONS * HALF_LIFE * math.log2(max(behind, 2.0)))
    application.run(QUERIES // 2, HEALTHY)
    assert returned < QUERIES - 1_000
    assert share(application, returned, QUERIES) > 0.5


@pytest.mark.parametrize("policy", [Exp3(eta=0.2), Exp4()], ids=lambda policy: policy.name)
def test_without_forgetting_a_repaired_model_waits_as_long_as_it_was_broken(policy):
    application = SimulatedApplication(policy, MODELS, PARTITIONS)
    for error_rates in (HEALTHY, BROKEN, HEALTHY, HEALTHY):
        application.run(QUERIES // 4, error_rates)
    assert share(application, QUERIES - 1_000, QUERIES) < 0.1
