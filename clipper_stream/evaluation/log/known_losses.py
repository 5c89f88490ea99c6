"""Which losses a log holds, and how probable it was that it would.

Rules of this file:
- An application that names the models of a query has chosen the query as well: that it wants this model may say how
  hard the query is. Such a decision is no evidence about a policy, whatever its propensities say (1).
"""

from typing import NamedTuple

import numpy as np

from clipper_stream.evaluation.estimators.propensity_matrices import scored_propensity
from clipper_stream.evaluation.log.columns import Bools, DecisionColumns, Floats
from clipper_topics.prediction import NAMED


class KnownLosses(NamedTuple):
    """Losses in the form that walks need.

    Attributes:
        weight: 1 / probability of having been scored where the loss is known, else 0, (n, M).
        loss: The loss where it is known, else 0, (n, M).
    """

    weight: Floats
    loss: Floats


def known_losses(columns: DecisionColumns) -> KnownLosses:
    """Return the known losses of the decisions with feedback that a policy made.

    >>> from clipper_stream.evaluation.log.arrays import logged
    >>> known_losses(logged([[0.5, 0.0]], [[1.0, np.nan]], labels=["cat"])).weight.tolist()
    [[2.0, 0.0]]

    Source: as `scored_propensity`.
    """
    scored = np.zeros(columns.loss.shape)
    for model in range(len(columns.models)):
        scored[:, model] = scored_propensity(columns, model)
    usable = columns.with_feedback & by_policy(columns)
    known = ~np.isnan(columns.loss) & usable[:, None] & (scored > 0.0)
    weight = np.divide(1.0, scored, out=np.zeros_like(scored), where=known)
    return KnownLosses(weight, np.where(known, columns.loss, 0.0))


def by_policy(columns: DecisionColumns) -> Bools:
    """Decisions that a policy made, and not the application by naming models, (n,).

    >>> from clipper_stream.evaluation.log.arrays import logged
    >>> by_policy(logged([[1.0]] * 2, [[0.0]] * 2, policies=("exp3", "named"), policy=[0, 1])).tolist()
    [True, False]
    """
    named = [code for code, policy in enumerate(columns.policies) if policy == NAMED]
    return ~np.isin(columns.policy, named)
