"""Logs of which everything is known: the loss of every model on every query, and so what a candidate really loses."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipper_stream.evaluation.estimators.block_sums import BLOCKS
from clipper_stream.evaluation.estimators.outcome_model import OutcomeSums, with_predictions
from clipper_stream.evaluation.estimators.propensity_matrices import Choices

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Queries that are drawn from, each as likely as any other.

    Attributes:
        losses: Loss of each model on each query, (N, K).
        context: Context of each query, (N,).
    """

    losses: Floats
    context: NDArray[np.int32]

    @property
    def means(self) -> Floats:
        """Mean loss of each model in each context, (C, K)."""
        contexts = range(int(self.context.max()) + 1)
        return np.stack([self.losses[self.context == context].mean(axis=0) for context in contexts])

    def truth(self, candidate: Floats) -> float:
        """What a candidate, its probabilities by context, (C, K), loses."""
        return float((candidate[self.context] * self.losses).sum(axis=1).mean())

    def logged(self, policy: Floats, audits: float, candidate: Floats, n: int, seed: int) -> Choices:
        """Decisions of a policy, with audits of a share of them, as a log holds them, and predictions for them.

        Args:
            policy: Probabilities by context, (C, K).
            audits: Share of the queries that ask every model.
            candidate: Who is estimated, (C, K).
            n: How many.
            seed: Of everything random.
        """
        rng = np.random.default_rng(seed)
        query = rng.integers(0, len(self.losses), n)
        context, models = self.context[query], self.losses.shape[1]
        asking = audits + (1.0 - audits) * policy
        served = (rng.random(n)[:, None] > np.cumsum(policy, axis=1)[context]).sum(axis=1).clip(0, models - 1)
        asked = (served[:, None] == np.arange(models)) | (rng.random(n) < audits)[:, None]
        losses = self.losses[query]
        choices = Choices(
            weight=np.where(asked, 1.0 / asking[context], 0.0),
            loss=np.where(asked, losses, 0.0),
            target=candidate[context],
            predicted=None,
            answer_loss=losses[np.arange(n), served],
            block=rng.integers(0, BLOCKS, n),
            context=context,
        )
        return with_predictions(choices, OutcomeSums.of(choices, len(policy)).table())


def synthetic(seed: int, contexts: int = 4, models: int = 5, queries: int = 20_000) -> Traffic:
    """Zero-one losses whose means by context and model lie between 0.1 and 0.6."""
    rng = np.random.default_rng(seed)
    context = rng.integers(0, contexts, queries).astype(np.int32)
    means = rng.uniform(0.1, 0.6, (contexts, models))
    return Traffic(losses=(rng.random((queries, models)) < means[context]).astype(float), context=context)


def exploring(traffic: Traffic, exploration: float, model: int) -> Floats:
    """Serves one model, and explores all for a share of the queries, in every context, (C, K)."""
    contexts, models = traffic.means.shape
    policy = np.full((contexts, models), exploration / models)
    policy[:, model] += 1.0 - exploration
    return policy


def near(traffic: Traffic, model: int) -> Floats:
    """Mostly what the log did, and the best of each context for three tenths of the queries, (C, K)."""
    return 0.7 * exploring(traffic, 0.1, model) + 0.3 * far(traffic)


def far(traffic: Traffic) -> Floats:
    """The best model of each context, always, (C, K)."""
    return np.eye(traffic.means.shape[1])[traffic.means.argmin(axis=1)]
