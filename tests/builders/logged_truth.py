"""Logs with a truth that is known: every model's loss on every query, and what a policy let the log see of them."""

from dataclasses import dataclass

import numpy as np

from clipper_stream.evaluation.log.arrays import logged
from clipper_stream.evaluation.log.columns import DecisionColumns

MODELS = ("svm:1", "knn:1", "tree:1")
ERROR_RATIOS = (0.1, 0.3, 0.5)


@dataclass(frozen=True, slots=True)
class Truth:
    """Losses of all models, (n, M), and when each query came and was scored."""

    loss: np.ndarray
    at_ms: np.ndarray
    feedback_at_ms: np.ndarray
    partition: np.ndarray
    context: np.ndarray

    def logged(self, probabilities, seed: int = 0, audit_ratio: float = 0.0) -> DecisionColumns:
        """What is logged when models are served with these probabilities, (M,) or (n, M)."""
        rng = np.random.default_rng([seed, 1])
        rows, models = self.loss.shape
        served_with = np.broadcast_to(np.asarray(probabilities, float), (rows, models))
        chosen = (rng.random(rows)[:, None] > np.cumsum(served_with, axis=1)[:, :-1]).sum(axis=1)
        audited = rng.random(rows) < audit_ratio
        served = np.eye(models, dtype=bool)[chosen]
        asked = served | audited[:, None]
        propensity = np.where(asked, audit_ratio + (1.0 - audit_ratio) * served_with, 0.0)
        return self._columns(propensity, served, served_with[np.arange(rows), chosen])

    def whole(self) -> DecisionColumns:
        """What is logged when all are asked for every query."""
        return self._columns(np.ones(self.loss.shape), np.ones(self.loss.shape, bool), 1.0)

    def _columns(self, propensity, served, served_propensity) -> DecisionColumns:
        return logged(
            propensity,
            np.where(propensity > 0.0, self.loss, np.nan),
            models=MODELS[: self.loss.shape[1]],
            served=served,
            served_propensity=served_propensity,
            contexts=(None, "north", "south"),
            at_ms=self.at_ms,
            feedback_at_ms=self.feedback_at_ms,
            partition=self.partition,
            context=self.context,
        )


def truth(rows: int, seed: int, delay_ms: int = 0, contexts: int = 1, errors=ERROR_RATIOS) -> Truth:
    """Zero-one losses with these means, a query a millisecond, in four partitions; contexts keep to one of them."""
    rng = np.random.default_rng([seed, 0])
    context = rng.integers(0, contexts, rows)
    at_ms = np.arange(rows)
    return Truth(
        loss=(rng.random((rows, len(errors))) < np.asarray(errors)).astype(float),
        at_ms=at_ms,
        feedback_at_ms=at_ms + (rng.integers(0, 2 * delay_ms, rows) if delay_ms else 0),
        partition=np.where(context == 0, rng.integers(0, 4, rows), context),
        context=context,
    )


def value(runs) -> float:
    """The loss that runs state."""
    runs = list(runs)
    return float(sum(run.numerator.sum() for run in runs) / sum(run.denominator.sum() for run in runs))
