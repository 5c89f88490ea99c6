"""How probable it was that several models were asked about the same query, which the log holds model by model only.

Rules of this file:
- A policy asks one model, or all of its candidates. Of a policy that asks one, two candidates are asked together in an
  audit alone, so with the probability `audit_ratio` of the configuration.
- Versions on trial were asked by a random number of their own, so the length that their intervals have in common
  (`selection.trials`) is a factor.
- What was asked with certainty is no condition: a column of a new model, or the models of an ensemble.

Source: Horvitz and Thompson, "A generalization of sampling without replacement", JASA 47, 1952 (joint inclusion).
"""

from collections.abc import Sequence

import numpy as np

from clipper_stream.evaluation.log.columns import Bools, DecisionColumns, Floats
from clipper_stream.evaluation.log.known_losses import by_policy

CERTAIN = 1.0 - 1e-12
"""A sum of shares may miss 1 by rounding."""
_ALWAYS = (0.0, 1.0)


def joint_propensity(columns: DecisionColumns, models: Sequence[str], members: Bools | None = None) -> Floats:
    """Probability with which all of these models, or those of them that are `members`, (n, K), were asked, (n,).

    It is 0 where one of them was not asked, or the query named its models.
    """
    wanted = np.ones((len(columns), len(models)), np.bool_) if members is None else members
    asked = np.where(wanted, columns.of_models(models).propensity, 1.0)
    tried = wanted & columns.configured(lambda config: [model in config.trials for model in models]).astype(np.bool_)
    low = columns.configured(lambda config: [config.trials.get(model, _ALWAYS)[0] for model in models])
    high = columns.configured(lambda config: [config.trials.get(model, _ALWAYS)[1] for model in models])
    uncertain = (asked < CERTAIN) & ~tried
    least = np.where(uncertain, asked, 1.0).min(axis=1, initial=1.0)
    audited = np.minimum(columns.configured(lambda config: config.audit_ratio), least)
    together = np.where(uncertain.sum(axis=1) > 1, audited, least)
    begin, end = np.where(tried, low, 0.0).max(axis=1, initial=0.0), np.where(tried, high, 1.0).min(axis=1, initial=1.0)
    evidence = (asked > 0.0).all(axis=1) & by_policy(columns)
    joint: Floats = np.where(evidence, together * np.maximum(end - begin, 0.0), 0.0)
    return joint
