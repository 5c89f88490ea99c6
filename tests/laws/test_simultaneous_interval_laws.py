"""The intervals of several candidates hold together: the best of many equals is not called better."""

from functools import cache

import numpy as np
from scipy.stats import binom

from clipper_stream.evaluation.candidates.candidate import OneModel
from clipper_stream.evaluation.evaluate import evaluate
from clipper_stream.evaluation.log.arrays import logged
from clipper_stream.evaluation.question import Question

SEEDS, DECISIONS, CANDIDATES, LOSS = 40, 1_000, 12, 0.3
MOST = int(binom.ppf(0.999, SEEDS, 0.05))
"""Of an event of 5 %, more than so many happen once in a thousand tests."""


@cache
def evaluations():
    """Logs in which every model was asked and none is better than another."""
    found = []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        losses = (rng.random((DECISIONS, CANDIDATES + 1)) < LOSS).astype(float)
        columns = logged(np.ones_like(losses), losses, answer_loss=losses[:, 0], offset=np.arange(DECISIONS))
        models = [OneModel(model=model) for model in columns.models[1:]]
        found.append(
            evaluate(
                "digits", lambda columns=columns: [columns], models, Question(seed=seed, estimators=("ips",), spans=1)
            )
        )
    return found


def test_of_many_equal_candidates_none_is_called_better_oftener_than_is_said():
    better = sum(any(one.verdict == "better" for one in each.candidates) for each in evaluations())
    assert better <= MOST


def test_the_interval_of_the_best_covers_its_loss():
    missed = sum(not each.best.loss.covers(LOSS) for each in evaluations())
    assert missed <= MOST


def test_the_page_says_that_intervals_hold_together():
    assert "Intervals and verdicts hold for all 12 candidates together with 95%." in evaluations()[0].notes
