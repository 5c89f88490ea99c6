"""What holds for every policy that walks a log, by each of the three ways."""

from functools import partial
from heapq import heappop, heappush
from itertools import pairwise

import numpy as np
import pytest
from builders.logged_truth import MODELS, truth

from clipper_stream.evaluation.candidates.candidate import FixedPolicy, LearningPolicy
from clipper_stream.evaluation.log.ensembles import Answering
from clipper_stream.evaluation.sequential.exact_simulation import simulate
from clipper_stream.evaluation.sequential.rejection_sampling import reject, sequential_dr
from clipper_stream.evaluation.sequential.replay import replay_rng
from clipper_stream.selection.registry import POLICIES, make_policy
from clipper_stream.selection.state import SelectionState, merge

NAMES = sorted(POLICIES)
LEARN_NOTHING = ("single", "split")
LOG = truth(600, 11, delay_ms=40, contexts=3)


def candidate(name: str) -> LearningPolicy:
    return LearningPolicy(policy=make_policy(name), models=MODELS)


def is_ensemble(name: str) -> bool:
    prepared = make_policy(name).prepare(SelectionState(), MODELS)
    return any(len(decision.served) > 1 for decision in prepared.decisions)


ALONE = [name for name in NAMES if not is_ensemble(name)]
WAYS = {
    "simulate": (LOG.whole(), simulate),
    "reject": (LOG.logged([0.5, 0.3, 0.2]), partial(reject, ratio=0.2)),
    "sequential_dr": (LOG.logged([0.5, 0.3, 0.2]), sequential_dr),
}


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("way", WAYS)
def test_how_a_log_is_cut_into_chunks_changes_nothing(way: str, name: str):
    columns, walk = WAYS[way]
    (whole,) = walk([columns], candidate(name))
    cuts = [0, 1, 250, 251, 600]
    parts = list(walk([columns.take(slice(*pair)) for pair in pairwise(cuts)], candidate(name)))
    for part in ("target", "numerator", "denominator", "learned", "clipped"):
        assert np.array_equal(np.concatenate([getattr(run, part) for run in parts]), getattr(whole, part)), part


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("way", WAYS)
def test_the_order_of_rows_is_that_of_their_times(way: str, name: str):
    columns, walk = WAYS[way]
    (whole,) = walk([columns], candidate(name))
    order = np.random.default_rng(2).permutation(len(columns))
    (shuffled,) = walk([columns.take(order)], candidate(name))
    assert np.array_equal(shuffled.target, whole.target[order])
    assert np.array_equal(shuffled.numerator, whole.numerator[order])


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("way", WAYS)
def test_probabilities_sum_to_one_where_the_candidate_was_asked(way: str, name: str):
    columns, walk = WAYS[way]
    (run,) = walk([columns], candidate(name))
    asked = run.denominator > 0.0
    assert asked.any()
    assert np.allclose(run.target[asked].sum(axis=1), 1.0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_learned_from_feedback_that_has_not_come(way: str, name: str):
    columns, walk = WAYS[way]
    columns.feedback_at_ms[:] = 10**9
    (run,) = walk([columns], candidate(name))
    start = FixedPolicy(policy=make_policy(name), models=MODELS).targeted(columns).target
    columns.feedback_at_ms[:] = LOG.feedback_at_ms
    known = run.target.any(axis=1)
    assert np.array_equal(run.target[known], start[known])


@pytest.mark.parametrize("name", LEARN_NOTHING)
@pytest.mark.parametrize("way", WAYS)
def test_a_policy_that_does_not_learn_does_what_the_fixed_one_does(way: str, name: str):
    columns, walk = WAYS[way]
    (run,) = walk([columns], candidate(name))
    fixed = FixedPolicy(policy=make_policy(name), models=MODELS).targeted(columns)
    known = run.target.any(axis=1)
    assert np.array_equal(run.target[known], fixed.target[known])


@pytest.mark.parametrize("name", LEARN_NOTHING)
def test_simulated_on_all_outputs_it_has_the_true_loss(name: str):
    columns = LOG.whole()
    (run,) = simulate([columns], candidate(name))
    target = FixedPolicy(policy=make_policy(name), models=MODELS).targeted(columns).target
    assert run.numerator.sum() / run.denominator.sum() == pytest.approx(
        (target * LOG.loss).sum(axis=1).mean(), abs=1e-12
    )


@pytest.mark.parametrize("name", ALONE)
def test_a_simulation_is_what_a_naive_loop_does(name: str):
    (run,) = simulate([LOG.whole()], candidate(name), seed=5)
    assert np.array_equal(run.numerator, naive(make_policy(name), 5))


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


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ALONE])
@pytest.mark.parametrize("way", ["reject", "sequential_dr"])
def test_an_ensemble_that_learns_is_simulated_or_refused(way: str, name: str):
    columns, walk = WAYS[way]
    with pytest.raises(Exception, match="3 models together while it learns: simulate"):
        list(walk([columns], candidate(name)))
    (run,) = simulate([LOG.whole()], candidate(name), answering=Answering())
    assert not run.denominator.any()  # this log holds losses, and no outputs that could be combined
