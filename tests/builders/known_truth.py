"""Logs whose truth is known: every model's loss on every query is drawn first, then a policy logs what it sees."""

from dataclasses import dataclass, replace

import numpy as np

from builders.columns import logged
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.configuration import Configuration

MODELS = ("a:1", "b:1", "c:1")
ERROR_RATIOS = (0.1, 0.3, 0.5)


@dataclass(frozen=True, slots=True)
class Truth:
    """Losses of all models, (n, M), and when each query came and was scored, where."""

    loss: np.ndarray
    at_ms: np.ndarray
    feedback_at_ms: np.ndarray
    partition: np.ndarray
    context: np.ndarray
    contexts: tuple[str | None, ...] = (None, "north", "south")

    def logged(self, shares, seed: int = 0, audit_ratio: float = 0.0, missing=0.0) -> DecisionColumns:
        """What is logged when models are served with these probabilities, (M,) or (n, M).

        Feedback is missing with a probability, which may be one a model.
        """
        rng, (rows, models) = np.random.default_rng([seed, 1]), self.loss.shape
        served_with = np.broadcast_to(np.asarray(shares, float), (rows, models))
        chosen = (rng.random(rows)[:, None] > np.cumsum(served_with, axis=1)[:, :-1]).sum(axis=1)
        audited, served = rng.random(rows) < audit_ratio, np.eye(models, dtype=bool)[chosen]
        propensity = np.where(served | audited[:, None], audit_ratio + (1.0 - audit_ratio) * served_with, 0.0)
        fed = rng.random(rows) >= np.broadcast_to(missing, models)[chosen]
        configs = {0: Configuration(audit_ratio=audit_ratio)}
        alone = served_with[np.arange(rows), chosen]
        return replace(self._columns(propensity, served, alone, fed, confidence=rng.random(rows)), configs=configs)

    def whole(self) -> DecisionColumns:
        everybody = np.ones(self.loss.shape, bool)
        return self._columns(everybody.astype(float), everybody, 1.0, everybody[:, 0])

    def _columns(self, propensity, served, served_propensity, fed, **given) -> DecisionColumns:
        answer = self.loss[np.arange(len(fed)), served.argmax(axis=1)]
        return logged(
            propensity, np.where((propensity > 0.0) & fed[:, None], self.loss, np.nan),
            models=MODELS[: self.loss.shape[1]], served=served, served_propensity=served_propensity,
            contexts=self.contexts, context=self.context, partition=self.partition, at_ms=self.at_ms,
            feedback_at_ms=np.where(fed, self.feedback_at_ms, -1),
            feedback_offset=np.where(fed, np.arange(len(fed)), -1), label=np.where(fed, 0, -1),
            answer_loss=np.where(fed, answer, np.nan), **given,
        )  # fmt: skip


def truth(rows: int, seed: int, delay_ms: int = 0, contexts: int = 1) -> Truth:
    """Zero-one losses, a query a millisecond, in four partitions; contexts keep to one of them."""
    rng = np.random.default_rng([seed, 0])
    context, at_ms = rng.integers(0, contexts, rows), np.arange(rows)
    return Truth(
        loss=(rng.random((rows, len(MODELS))) < np.asarray(ERROR_RATIOS)).astype(float),
        at_ms=at_ms,
        feedback_at_ms=at_ms + (rng.integers(0, 2 * delay_ms, rows) if delay_ms else 0),
        partition=np.where(context == 0, rng.integers(0, 4, rows), context),
        context=context,
    )


def log_of(
    n=4_000, seed=0, *, shares=(0.6, 0.2, 0.2), contexts=1, delay_ms=50, means=(0.3, 0.2, 0.4), **given
) -> tuple[DecisionColumns, np.ndarray]:
    """A log of a split by shares, and the true losses, (n, M); in odd contexts the first two models change places."""
    rng, at_ms = np.random.default_rng(seed), 1_700_000_000_000 + 100 * np.arange(n)
    context, swapped = rng.integers(0, contexts, n), [means[1], means[0], *means[2:]]
    loss = (rng.random((n, len(means))) < np.where(context[:, None] % 2 == 1, swapped, means)).astype(float)
    names = (None,) if contexts == 1 else tuple(f"user-{number}" for number in range(contexts))
    found = Truth(loss, at_ms, at_ms + delay_ms, np.zeros(n, int), context, names)
    return found.logged(shares, seed, **given), loss


def in_chunks(columns: DecisionColumns, size: int):
    """A log that is read in chunks, anew each time."""
    return lambda: (columns.take(slice(start, start + size)) for start in range(0, len(columns), size))


def value(runs) -> float:
    runs = list(runs)
    return float(sum(run.numerator.sum() for run in runs) / sum(run.denominator.sum() for run in runs))
