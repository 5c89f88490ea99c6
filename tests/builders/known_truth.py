"""Logs whose truth is known: every model's loss on every query is drawn first, then a policy logs what it sees."""

import numpy as np

from clipper_stream.evaluation.log.arrays import logged
from clipper_stream.evaluation.log.columns import DecisionColumns

MODELS = ("a:1", "b:1", "c:1")


def true_losses(n: int, seed: int, means=(0.3, 0.2, 0.4), contexts: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Zero-one losses of each model, (n, M), and the context of each query, (n,): in odd ones a and b change places."""
    rng = np.random.default_rng(seed)
    context = rng.integers(0, contexts, n)
    rates = np.tile(np.array(means, float), (n, 1))
    odd = context % 2 == 1
    rates[odd, 0], rates[odd, 1] = means[1], means[0]
    return (rng.random((n, len(means))) < rates).astype(float), context


def log_of(
    n: int = 4_000,
    seed: int = 0,
    *,
    shares=(0.6, 0.2, 0.2),
    audit_ratio: float = 0.0,
    contexts: int = 1,
    delay_ms: int = 50,
    missing: float = 0.0,
    means=(0.3, 0.2, 0.4),
) -> tuple[DecisionColumns, np.ndarray]:
    """A log of a split by shares, and the true losses."""
    truth, context = true_losses(n, seed, means, contexts)
    rng = np.random.default_rng(seed + 1_000_003)
    chosen = rng.choice(len(shares), n, p=shares)
    served = np.eye(len(shares), dtype=bool)[chosen]
    audited = rng.random(n) < audit_ratio
    asked = served | audited[:, None]
    probability = audit_ratio + (1.0 - audit_ratio) * np.array(shares)
    at_ms = 1_700_000_000_000 + 100 * np.arange(n)
    fed = rng.random(n) >= missing
    columns = logged(
        np.where(asked, probability, 0.0), np.where(asked & fed[:, None], truth, np.nan), models=MODELS[: len(shares)],
        served=served, served_propensity=np.array(shares)[chosen],
        contexts=[None] if contexts == 1 else [f"user-{number}" for number in range(contexts)], context=context,
        at_ms=at_ms, feedback_at_ms=np.where(fed, at_ms + delay_ms, -1),
        feedback_offset=np.where(fed, np.arange(n), -1),
        label=np.where(fed, 0, -1), answer_loss=np.where(fed, truth[np.arange(n), chosen], np.nan),
        confidence=rng.random(n),
    )  # fmt: skip
    return columns, truth


def in_chunks(columns: DecisionColumns, size: int):
    """A log that is read in chunks, anew each time."""
    return lambda: (columns.take(slice(start, start + size)) for start in range(0, len(columns), size))
