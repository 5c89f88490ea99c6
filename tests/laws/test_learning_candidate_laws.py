"""What holds for every policy that walks a log, in both ways."""

from dataclasses import fields, replace
from functools import partial
from heapq import heappop, heappush
from itertools import pairwise

import numpy as np
import pytest
from builders.known_truth import MODELS, truth, value

from clipper_stream.evaluation.candidates.candidate import FixedPolicy, LearningPolicy
from clipper_stream.evaluation.sequential.exact_simulation import simulate
from clipper_stream.evaluation.sequential.rejection_sampling import reject
from clipper_stream.evaluation.sequential.replay import ReplayRun, replay_rng
from clipper_stream.selection.registry import POLICIES, make_policy
from clipper_stream.selection.state import SelectionState, merge

NAMES = sorted(POLICIES)
LEARN_NOTHING = ("single", "split")
LOG = truth(600, 11, delay_ms=40, contexts=3)


def candidate(name: str) -> LearningPolicy:
    return LearningPolicy(policy=make_policy(name), models=MODELS)


ENSEMBLES = ("exp4", "exp4_clipper")
ALONE = [name for name in NAMES if name not in ENSEMBLES]
WAYS = {
    "simulate": (LOG.whole(), simulate),
    "reject": (LOG.logged([0.5, 0.3, 0.2]), partial(reject, ratio=0.2)),
}


each_way = pytest.mark.parametrize("way", WAYS)
each_alone = pytest.mark.parametrize("name", ALONE)


def same(one: ReplayRun, other: ReplayRun) -> bool:
    return all(np.array_equal(getattr(one, part.name), getattr(other, part.name)) for part in fields(ReplayRun))


@each_alone
@each_way
def test_the_cut_into_chunks_and_the_order_of_rows_change_nothing_and_probabilities_sum_to_one(way: str, name: str):
    columns, walk = WAYS[way]
    (whole,) = walk([columns], candidate(name))
    parts = list(walk([columns.take(slice(*pair)) for pair in pairwise([0, 1, 250, 251, 600])], candidate(name)))
    joined = {part.name: np.concatenate([getattr(run, part.name) for run in parts]) for part in fields(ReplayRun)}
    assert same(ReplayRun(**joined), whole)
    order = np.random.default_rng(2).permutation(len(columns))
    (shuffled,) = walk([columns.take(order)], candidate(name))
    assert same(shuffled, ReplayRun(**{part.name: getattr(whole, part.name)[order] for part in fields(ReplayRun)}))
    asked = whole.denominator > 0.0
    assert asked.any()
    assert np.allclose(whole.target[asked].sum(axis=1), 1.0, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "feedback_at_ms"), [*((name, 10**9) for name in ALONE), *((name, None) for name in LEARN_NOTHING)]
)
@each_way
def test_until_feedback_comes_or_for_ever_it_does_what_the_fixed_one_does(way: str, name: str, feedback_at_ms):
    columns, walk = WAYS[way]
    if feedback_at_ms:
        columns = replace(columns, feedback_at_ms=np.full(len(columns), feedback_at_ms))
    (run,) = walk([columns], candidate(name))
    fixed = FixedPolicy(policy=make_policy(name), models=MODELS).targeted(columns).target
    known = run.target.any(axis=1)
    assert known.any()
    assert np.array_equal(run.target[known], fixed[known])


@pytest.mark.parametrize("name", LEARN_NOTHING)
def test_simulated_on_all_outputs_it_has_the_true_loss(name: str):
    columns = LOG.whole()
    target = FixedPolicy(policy=make_policy(name), models=MODELS).targeted(columns).target
    assert value(simulate([columns], candidate(name))) == pytest.approx((target * LOG.loss).sum(axis=1).mean())


@pytest.mark.parametrize(
    ("name", "parameters"), [*((name, {}) for name in ALONE), ("exp3", {"half_life": 1.0, "eta": 0.5})], ids=str
)
def test_a_simulation_is_what_a_naive_loop_does(name, parameters):
    policy = make_policy(name, parameters)
    (run,) = simulate([LOG.whole()], LearningPolicy(policy=policy, models=MODELS), seed=5)
    assert np.array_equal(run.numerator, naive(policy, 5))


def naive(policy, seed: int) -> np.ndarray:
    """One query after another, with nothing kept: states in a dictionary, every choice prepared anew."""
    columns, states, coming, losses = LOG.whole(), {}, [], np.zeros(len(LOG.at_ms))
    for row in range(len(columns)):
        context, partition = columns.contexts[columns.context[row]], int(columns.partition[row])
        while coming and coming[0][0] < columns.at_ms[row]:
            *_, place, loss, propensity = heappop(coming)
            states[place] = policy.observe(states.get(place, SelectionState()), loss, propensity)
        mine = [(context, partition)] if context else [(None, number) for number in range(4)]
        prepared = policy.prepare(merge(states[place] for place in mine if place in states), MODELS)
        probability = {decision.served[0]: decision.served_propensity for decision in prepared.decisions}
        losses[row] = sum(probability.get(model, 0.0) * loss for model, loss in zip(MODELS, LOG.loss[row], strict=True))
        decision = prepared.select(replay_rng(seed, partition, row))
        seen = {model: float(LOG.loss[row][MODELS.index(model)]) for model in decision.models}
        asked = dict(zip(decision.models, decision.propensities, strict=True))
        heappush(coming, (int(columns.feedback_at_ms[row]), partition, row, (context, partition), seen, asked))
    return losses


@pytest.mark.parametrize("name", ENSEMBLES)
def test_an_ensemble_that_learns_is_simulated_or_refused(name: str):
    columns, walk = WAYS["reject"]
    with pytest.raises(Exception, match="3 models together while it learns: simulate"):
        list(walk([columns], candidate(name)))
    (run,) = simulate([LOG.whole()], candidate(name))
    assert not run.denominator.any()  # this log holds losses, and no outputs that could be combined
