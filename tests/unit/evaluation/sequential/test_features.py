"""A policy that chooses by features is walked, and frozen, by those that were logged."""

import numpy as np
import pytest
from builders.logged_truth import value

from clipper_stream.evaluation.candidates.candidate import FixedPolicy, LearningPolicy
from clipper_stream.evaluation.log.arrays import logged
from clipper_stream.evaluation.sequential.exact_simulation import simulate
from clipper_stream.evaluation.sequential.rejection_sampling import reject, sequential_dr
from clipper_stream.evaluation.sequential.replay import features_of
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import SelectionState

LIN_UCB = make_policy("lin_ucb", {"exploration": 0.1})
ROWS = 1_200


def log(propensity):
    """Two models, each right on half of the queries: which half the first feature says."""
    rng = np.random.default_rng(4)
    feature = rng.integers(0, 2, ROWS)
    loss = np.stack([feature, 1 - feature], axis=1).astype(float)
    asked = np.ones((ROWS, 2), bool) if propensity == 1.0 else np.eye(2, dtype=bool)[rng.integers(0, 2, ROWS)]
    return logged(
        np.where(asked, propensity, 0.0),
        np.where(asked, loss, np.nan),
        served=asked,
        served_propensity=propensity,
        features=np.stack([feature.astype(float), np.full(ROWS, np.nan)], axis=1),
    )


WAYS = {
    "simulate": (log(1.0), simulate),
    "reject": (log(0.5), lambda chunks, candidate: reject(chunks, candidate, ratio=0.5)),
    "sequential_dr": (log(0.5), sequential_dr),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_policy_learns_which_model_is_right_where(way):
    # an explored query is wrong half of the time: 0.05; context-free policies lose 0.5
    columns, walk = WAYS[way]
    assert value(walk([columns], LearningPolicy(policy=LIN_UCB, models=columns.models))) < 0.15
    assert value(walk([columns], LearningPolicy(policy=make_policy("exp3"), models=columns.models))) > 0.4


def test_a_frozen_one_chooses_by_the_features_of_each_query():
    columns = log(1.0)
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
