"""The intervals of several candidates hold together: the best of many equals is not called better."""

import numpy as np
import pytest
from builders.columns import logged
from scipy.stats import binom

from clipper_stream.evaluation.candidates.candidate import OneModel
from clipper_stream.evaluation.evaluate import evaluate
from clipper_stream.evaluation.question import Question

DECISIONS, CANDIDATES, LOSS = 1_000, 12, 0.3


def evaluated(seed):
    """A log in which every model was asked and none is better than another."""
    losses = (np.random.default_rng(seed).random((DECISIONS, CANDIDATES + 1)) < LOSS).astype(float)
    columns = logged(np.ones_like(losses), losses, answer_loss=losses[:, 0], offset=np.arange(DECISIONS))
    models = [OneModel(model=model) for model in columns.models[1:]]
    return evaluate("digits", lambda: [columns], models, Question(seed=seed, estimators=("ips",), spans=1))


@pytest.mark.parametrize("seeds", [10, pytest.param(40, marks=pytest.mark.slow)])
def test_of_many_equal_candidates_none_is_called_better_oftener_than_is_said_and_the_best_is_covered(seeds):
    found = [evaluated(seed) for seed in range(seeds)]
    most = binom.ppf(0.999, seeds, 0.05)  # of an event of 5 %, more than so many happen once in a thousand tests
    assert sum(any(one.verdict == "better" for one in each.candidates) for each in found) <= most
    best = [min((one.loss for one in each.candidates), key=lambda loss: loss.value) for each in found]
    assert sum(not one.covers(LOSS) for one in best) <= most
    assert any("for all 12 candidates together with 95%" in note for note in found[0].notes)
