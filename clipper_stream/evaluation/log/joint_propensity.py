"""How probable it was that several models were asked about the same query, which the log holds model by model only.

A policy that serves one model m with probability p(m) and sends a share a of the queries to all candidates asks m with
probability q(m) = a + (1 - a) p(m), which is what is logged. So two candidates are asked together with probability a,
and a can be told from what is logged, in two ways:

    by the model served:   a = (q - p) / (1 - p)         with its q, and p = `served_propensity`
    by an audited row:     a = (sum of q - 1) / (K - 1)  over its K candidates, since their p sum to 1

Rules of this file:
- Where both can be told and differ, something besides the policy was at play (a canary, or a version on trial that
  was not named), and the row is not used: its joint probability is 0.
- A version on trial was asked by a random number of its own, so its probability is a factor. Of several only the
  least: their shares are nested (`selection.trials`).
- What was asked with certainty is no condition: a column of a new model, or the models of an ensemble.

Source: Horvitz and Thompson, "A generalization of sampling without replacement", JASA 47, 1952 (joint inclusion).
"""

from collections.abc import Collection, Sequence

import numpy as np

from clipper_stream.evaluation.log.columns import Bools, DecisionColumns, Floats
from clipper_stream.evaluation.log.known_losses import by_policy

_AGREE = 1e-6
"""By which the two ways may differ. The first is off by 1e-16 / (1 - p): for a p above `_TOLD` it is not asked."""
_CERTAIN = 1.0 - 1e-12
_TOLD = 1.0 - 1e-9


def audit_ratio_of(columns: DecisionColumns, trials: Collection[str] = ()) -> Floats:
    """Share of the queries that asked all candidates when this decision was made, (n,); NaN where it cannot be told."""
    chosen = np.array([model not in trials for model in columns.models], np.bool_)
    counted = columns.asked & chosen & ~_certain_beside(columns)
    served = _by_served(columns, counted)
    whole = _by_row(columns, counted)
    known = np.where(np.isnan(served), whole, served)
    disagree = ~np.isnan(served) & ~np.isnan(whole) & (np.abs(served - whole) > _AGREE)
    return np.where(disagree, np.nan, np.clip(known, 0.0, 1.0))


def joint_propensity(columns: DecisionColumns, models: Sequence[str], trials: Collection[str] = ()) -> Floats:
    """Probability with which all of these models were asked about a query, (n,).

    It is 0 where one of them was not asked, or the query named its models. No policy chose `trials`.
    """
    asked = columns.of_models(models).propensity
    tried = np.array([model in trials for model in models], np.bool_)
    uncertain = (asked < _CERTAIN) & ~tried
    several = uncertain.sum(axis=1)
    least = np.where(uncertain, asked, 1.0).min(axis=1, initial=1.0)
    ratio = np.nan_to_num(audit_ratio_of(columns, trials), nan=0.0) if (several > 1).any() else np.zeros(len(columns))
    together = np.where(several > 1, np.minimum(ratio, least), least)
    shared = np.where(tried, asked, 1.0).min(axis=1, initial=1.0)
    evidence = (asked > 0.0).all(axis=1) & by_policy(columns)
    joint: Floats = np.where(evidence, together * shared, 0.0)
    return joint


def _certain_beside(columns: DecisionColumns) -> Bools:
    """Asked with certainty, not served, while others were not certain: of a candidate that cannot be, (n, M)."""
    certain = columns.propensity >= _CERTAIN
    doubtful = np.any(columns.asked & ~certain, axis=1, keepdims=True)
    beside: Bools = certain & ~columns.served & doubtful
    return beside


def _by_served(columns: DecisionColumns, counted: Bools) -> Floats:
    lone = columns.served & counted
    usable = (lone.sum(axis=1) == 1) & (columns.served.sum(axis=1) == 1) & (columns.served_propensity < _TOLD)
    asked = np.where(lone, columns.propensity, 0.0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (asked - columns.served_propensity) / (1.0 - columns.served_propensity)
    return np.where(usable, ratio, np.nan)


def _by_row(columns: DecisionColumns, counted: Bools) -> Floats:
    candidates = counted.sum(axis=1)
    total = np.where(counted, columns.propensity, 0.0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (total - 1.0) / (candidates - 1)
    return np.where(candidates > 1, ratio, np.nan)
