"""Which losses a log holds, and how probable it was that it would.

Rules of this file:
- A loss is weighed with the probability of having been *scored*. A label scores every model that answered, so that is
  the probability of having been asked, audits included. A loss, a reward, or a lone model that did not answer scores
  the served one only, so that is the probability of having been served.
- An application that names the models of a query has chosen the query as well: that it wants this model may say how
  hard the query is. Such a decision is no evidence about a policy, whatever its propensities say (1).
"""

from typing import NamedTuple

import numpy as np

from clipper_stream.evaluation.log.columns import Bools, DecisionColumns, Floats
from clipper_topics.prediction import NAMED


class KnownLosses(NamedTuple):
    """Losses with their weights, stored by column: sums over few columns are fast then.

    Attributes:
        weight: 1 / probability of having been scored where the loss is known, else 0, (n, M).
        loss: The loss where it is known, else 0, (n, M).
    """

    weight: Floats
    loss: Floats


def known_losses(columns: DecisionColumns) -> KnownLosses:
    """Return the known losses of the decisions with feedback that a policy made."""
    shape, usable = columns.loss.shape, columns.with_feedback & by_policy(columns)
    weight, loss = np.empty(shape, order="F"), np.empty(shape, order="F")
    for model in range(shape[1]):
        scored, of_model = scored_propensity(columns, model), columns.loss[:, model]
        known = (scored > 0.0) & ~np.isnan(of_model) & usable
        np.divide(1.0, np.where(known, scored, np.inf), out=weight[:, model])  # faster than with `where=`
        loss[:, model] = np.where(known, of_model, 0.0)
    return KnownLosses(weight, loss)


def scored_propensity(columns: DecisionColumns, model: int) -> Floats:
    """Probability with which the model of a column was to be scored; 0 where it was not asked, (n,).

    Source: `clipper_stream.feedback.update.score`, whose losses these are.
    """
    labelled = columns.answered[:, model] & (columns.label >= 0)
    if labelled.all():
        return columns.propensity[:, model]
    return np.where(labelled, columns.propensity[:, model], columns.served_propensity * columns.served[:, model])


def by_policy(columns: DecisionColumns) -> Bools:
    """Decisions that a policy made, and not the application by naming models, (n,)."""
    if NAMED not in columns.policies:
        return np.ones(len(columns), np.bool_)
    return np.asarray(columns.policy != columns.policies.index(NAMED))
