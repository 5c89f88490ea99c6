"""Statistics of both walks: fixed seeds, and bounds computed from the spread over them."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from builders.columns import logged
from builders.known_truth import ERROR_RATIOS, MODELS, Truth, in_chunks, truth, value

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.candidates.candidate import FixedPolicy, LearningPolicy
from clipper_stream.evaluation.log_summary import summarize_log
from clipper_stream.evaluation.question import Question
from clipper_stream.evaluation.replicates import counting_decisions, run_replicates
from clipper_stream.evaluation.sequential.exact_simulation import simulate
from clipper_stream.evaluation.sequential.rejection_sampling import reject
from clipper_stream.evaluation.sequential.replay import features_of, replay_rng
from clipper_stream.selection.distribution import audited, one_of
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.rng import query_rng
from clipper_stream.selection.state import SelectionState

EXP3 = LearningPolicy(policy=make_policy("exp3", {"eta": 0.3}), models=MODELS)
SPLIT = LearningPolicy(policy=make_policy("split", {"shares": {"a:1": 1, "b:1": 1}}), models=MODELS)
SPLIT_LOSS = (ERROR_RATIOS[0] + ERROR_RATIOS[1]) / 2
each_size = pytest.mark.parametrize("seeds", [10, pytest.param(40, marks=pytest.mark.slow)])
LIN_UCB = make_policy("lin_ucb", {"exploration": 0.1})
ONLINE_ROWS = 300


def within(found, expected, deviations: float = 3.0) -> None:
    """Two means over seeds differ by no more than their spread explains: by chance once in 370."""
    error = np.sqrt(np.var(found, ddof=1) / len(found) + np.var(expected, ddof=1) / len(expected))
    assert abs(np.mean(found) - np.mean(expected)) < deviations * error


def first_taken(run, rows: int) -> float:
    losses = run.numerator[run.learned]
    assert len(losses) >= rows
    return float(losses[:rows].mean())


@cache
def online(seeds) -> list[float]:
    """Loss of the learning policy on streams of its own."""
    return [value(simulate([truth(ONLINE_ROWS, 1_000 + seed).whole()], EXP3, seed=seed)) for seed in range(seeds)]


@each_size
@pytest.mark.parametrize(
    ("probabilities", "audit_ratio", "ratio", "rows"),
    [
        ([1 / 3] * 3, 0.0, 1 / 3, 1_200),  # a third is taken: 300 are there but for one log in 10**9 (400 +- 16)
        ([0.2, 0.5, 0.3], 0.0, 0.2, 2_100),  # a fifth is taken: 420 +- 18
        ([0.1, 0.5, 0.4], 0.25, 0.325, 1_200),  # models are scored with 0.25 + 0.75 p, so at least with 0.325
    ],
    ids=["uniform", "uneven", "audited"],
)
def test_rejection_is_unbiased(seeds, probabilities, audit_ratio, ratio, rows):
    logs = [truth(rows, seed).logged(probabilities, seed, audit_ratio) for seed in range(seeds)]
    found = [first_taken(next(reject([log], EXP3, ratio=ratio, seed=3)), ONLINE_ROWS) for log in logs]
    within(found, online(3 * seeds))


@pytest.mark.parametrize("ratio", [0.0, 1.5, float("nan")])
def test_a_ratio_that_is_none_is_refused(ratio):
    with pytest.raises(InvalidSetting, match="ratio"):
        next(reject([truth(1, 1).whole()], EXP3, ratio=ratio))


def test_audits_alone_tell_the_loss_by_their_probability():
    # of 4,000 rows a fifth is audited: standard error sqrt(0.16 / 800) at most
    log = truth(4_000, 6).logged([0.1, 0.6, 0.3], audit_ratio=0.2)
    (run,) = simulate([log], SPLIT)
    seen = run.denominator > 0.0
    assert np.array_equal(seen, log.asked.all(axis=1))
    assert run.denominator[seen] == pytest.approx(5.0)
    assert value([run]) == pytest.approx(SPLIT_LOSS, abs=3 * np.sqrt(0.16 / seen.sum()))


def test_a_candidate_does_not_draw_what_the_log_drew():
    # with the router's own numbers, those of audited queries lie in three intervals of a tenth of [0, 1)
    router = audited(one_of(dict.fromkeys(MODELS, 1 / 3), [1 / 3] * 3), 0.1)
    rows = [row for row in range(6_000) if len(router.select(query_rng(7, f"2-{row}")).models) == 3]
    ours = np.histogram([replay_rng(7, 2, row).random() for row in rows], 10, (0.0, 1.0))[0]
    theirs = np.histogram([query_rng(7, f"2-{row}").random() for row in rows], 10, (0.0, 1.0))[0]
    within_chance = 3.0 * np.sqrt(len(rows) * 0.09)
    assert np.abs(ours - len(rows) / 10).max() < within_chance
    assert np.abs(theirs - len(rows) / 10).max() > within_chance


def test_an_ensemble_is_scored_with_the_weights_that_it_has_learned():
    rows = 40
    outputs, labels = [["a", "b", "b"]] * rows, ["a"] * rows
    columns = logged(np.ones((rows, 3)), [[0.0, 1.0, 1.0]] * rows, outputs=outputs, labels=labels)
    exp4 = LearningPolicy(policy=make_policy("exp4", {"eta": 1.0}), models=columns.models)
    (run,) = simulate([columns], exp4)
    assert run.numerator[0] == 1.0
    assert not run.numerator[5:].any()


def test_a_course_has_the_loss_of_its_runs():
    log, question = in_chunks(truth(900, 2).logged([1 / 3] * 3), 400), Question(courses=1)
    found = summarize_log(log, question)
    (rejected,) = run_replicates(log, EXP3, question, found)
    runs = list(reject(counting_decisions(log, EXP3, found), EXP3, ratio=1 / 3))
    estimate = rejected.tally.estimates["rejection"]
    assert estimate.value == pytest.approx(value(runs), abs=1e-12)
    learned = sum(run.learned.sum() for run in runs)
    assert estimate.decisions == rejected.known == rejected.learned == learned < 400


def by_feature(shares=None):
    """Two models, each right on half of the queries: which half the first feature says. All are asked, or one is."""
    rows, feature = np.arange(1_200), np.random.default_rng(4).integers(0, 2, 1_200)
    full = Truth(np.stack([feature, 1.0 - feature], axis=1), rows, rows, 0 * rows, 0 * rows)
    columns = full.logged(shares) if shares else full.whole()
    return replace(columns, features=np.stack([feature.astype(float), np.full(1_200, np.nan)], axis=1))


WAYS = {
    "simulate": (by_feature(), simulate),
    "reject": (by_feature([0.5, 0.5]), lambda chunks, candidate: reject(chunks, candidate, ratio=0.5)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_policy_learns_which_model_is_right_where(way):
    # an explored query is wrong half of the time: 0.05; context-free policies lose 0.5
    columns, walk = WAYS[way]
    assert value(walk([columns], LearningPolicy(policy=LIN_UCB, models=columns.models))) < 0.15
    assert value(walk([columns], LearningPolicy(policy=make_policy("exp3"), models=columns.models))) > 0.4


def test_a_frozen_one_chooses_by_the_features_of_each_query():
    columns = by_feature()
    state = SelectionState()
    for row, features in enumerate(features_of(columns)):
        losses = dict(zip(columns.models, columns.loss[row].tolist(), strict=True))
        state = LIN_UCB.observe_for(state, losses, dict.fromkeys(columns.models, 1.0), features)
    found = FixedPolicy(policy=LIN_UCB, models=columns.models, states={None: state}).targeted(columns)
    assert found.target[columns.features[:, 0] == 0.0].min(axis=0).tolist() == pytest.approx([0.95, 0.05])
    assert found.target[columns.features[:, 0] == 1.0].min(axis=0).tolist() == pytest.approx([0.05, 0.95])


def test_what_stands_for_nothing_is_no_feature():
    columns = logged([[1.0]] * 3, [[0.0]] * 3, features=[[1.0, 2.0], [3.0, np.nan], [np.nan, np.nan]])
    assert features_of(columns) == [(1.0, 2.0), (3.0,), ()]
