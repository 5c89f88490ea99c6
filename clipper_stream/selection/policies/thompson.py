"""Thompson sampling: ask each model as often as it is probable that it is the best.

Rules of this file:
- Nothing is drawn. The probabilities are integrals, so what is logged as a propensity is what was drawn with.
- The integral runs over the angle theta = asin(sqrt(loss)). A Beta posterior of n feedbacks is bounded there, and about
  as wide as a normal one of deviation 1 / (2 sqrt(n)), whatever its mean: one mesh rule does for all.
- The mesh follows the narrowest posterior near by, and the angle near 0, where a density may begin like a root. Panels
  have three Gauss points; cumulative probabilities at these come from the matching collocation matrix. Typical errors
  are 1e-6, the worst of random posteriors 5e-5: they only say how near this is to Thompson's choice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from clipper_stream.selection.distribution import ActionDistribution, one_of, with_exploration
from clipper_stream.selection.parameters import bounded_field
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import SelectionState, average_loss

Floats = NDArray[np.float64]

_ROOT = math.sqrt(15.0)
_POINTS = np.array([0.5 - _ROOT / 10.0, 0.5, 0.5 + _ROOT / 10.0])
_WEIGHTS = np.array([5.0, 8.0, 5.0]) / 18.0
_UP_TO_POINT = np.array(
    [
        [5.0 / 36.0, 2.0 / 9.0 - _ROOT / 15.0, 5.0 / 36.0 - _ROOT / 30.0],
        [5.0 / 36.0 + _ROOT / 24.0, 2.0 / 9.0, 5.0 / 36.0 - _ROOT / 24.0],
        [5.0 / 36.0 + _ROOT / 30.0, 2.0 / 9.0 + _ROOT / 15.0, 5.0 / 36.0],
    ]
)
"""Weights of the three densities in the integral up to each point."""
_REACH = 8.0  # deviations: beyond it lies 1e-15 of a posterior
_GROWTH = 3.0  # a panel may be a third as wide as the distance from what is narrow
_FIRST = 1.0 / 32.0  # of a panel's width is the one that begins at 0; the next ones double
_LEAST = 1e-300  # a probability whose logarithm is still a number


@dataclass(frozen=True, slots=True, kw_only=True)
class Thompson(SelectionPolicy):
    """The probability that a model's mean loss is the least, by Beta posteriors, and a uniform share for all.

    Usually a loss is drawn from each posterior and the least one asked, and the probability of that is not known. Here
    it is integrated (see `best_arm_probabilities`) and then drawn from: the same choice, with an exact propensity, so
    that replay and learners by weight can use the log. The posterior of a model is Beta(a + loss, b + count - loss).
    Losses between 0 and 1 count as parts of an error, whose spread is never less than theirs.

    The prior is worth two feedbacks: Jeffreys' halves, and one at the average of the candidates' means, so that a model
    that joins is about as good as the others and little is known of it. Late feedback is no trouble: the choice
    stays random while nothing is heard.

    Attributes:
        exploration: Share of queries spread evenly over all candidates, in [0, 1]. Without it a model that is clearly
            worse is not asked any more, and replay cannot evaluate policies that would ask it.
        half_life, half_life_s: As in `SelectionPolicy`; with the first it is discounted Thompson sampling.

    >>> from clipper_stream.selection.state import ModelTotals
    >>> state = SelectionState({"a:1": ModelTotals(50.0, 5.0, 50.0, 5.0), "b:1": ModelTotals(50.0, 9.0, 50.0, 9.0)})
    >>> {model: round(weight, 3) for model, weight in Thompson().weights(state, ["a:1", "b:1"]).items()}
    {'a:1': 0.873, 'b:1': 0.127}

    Source: Thompson, "On the likelihood that one unknown probability exceeds another", Biometrika 25, 1933; Kaufmann,
    Korda and Munos, "Thompson sampling: an asymptotically optimal finite-time analysis", ALT 2012; Raj and Kalyani,
    "Taming non-stationary bandits: a Bayesian approach", 2017 (the discount).
    """

    name: ClassVar[str] = "thompson"
    exploration: float = bounded_field(0.0, most=1.0)
    half_life: float | None = bounded_field(None, above=0.0)
    half_life_s: float | None = bounded_field(None, above=0.0)

    def prepare(self, state: SelectionState, candidates: Sequence[str]) -> ActionDistribution:
        best = best_arm_probabilities(*posteriors(state, candidates)) if len(candidates) > 1 else [1.0]
        shares = with_exploration(dict(zip(candidates, best, strict=True)), self.exploration)
        return one_of(shares, shares.values())


def posteriors(state: SelectionState, candidates: Sequence[str]) -> tuple[list[float], list[float]]:
    """Parameters alpha and beta of each candidate's Beta posterior of its mean loss."""
    average = average_loss(state, candidates, unknown=0.5)
    totals = [state.of(model) for model in candidates]
    alphas = [0.5 + average + one.loss for one in totals]
    return alphas, [1.5 - average + max(0.0, one.count - one.loss) for one in totals]


def best_arm_probabilities(alphas: Sequence[float], betas: Sequence[float]) -> list[float]:
    """Probability of each of K independent Beta-distributed losses to be the least; they sum to 1.

    Args:
        alphas: First parameters, of losses, each >= 1/2, (K,).
        betas: Second parameters, of what is left to 1, each >= 1/2, (K,).

    >>> [round(p, 6) for p in best_arm_probabilities([1.0, 1.0], [2.0, 1.0])]
    [0.666667, 0.333333]

    Source: Hairer, Norsett and Wanner, "Solving Ordinary Differential Equations I", 2nd edition, 1993, table II.7.4
    (the matrix of Kuntzmann and Butcher).
    """
    edges = np.array(_mesh(alphas, betas))
    widths = np.diff(edges)
    points = edges[:-1, None] + widths[:, None] * _POINTS
    density = np.exp(_log_density(points, np.array(alphas), np.array(betas)))
    mass = widths[:, None, None] * density
    below = np.zeros((len(edges), len(alphas)))
    np.cumsum(np.einsum("k,pkm->pm", _WEIGHTS, mass), axis=0, out=below[1:])
    above = 1.0 - below[:-1, None, :] - np.einsum("jk,pkm->pjm", _UP_TO_POINT, mass)
    logs = np.log(np.maximum(above, _LEAST))
    others = np.exp(logs.sum(axis=2, keepdims=True) - logs)
    found = np.einsum("k,pkm->m", _WEIGHTS, mass * others)
    return [float(share) for share in found / found.sum()]


def _log_density(points: Floats, alphas: Floats, betas: Floats) -> Floats:
    """Of each Beta posterior in the angle: log of 2 sin^(2a-1) cos^(2b-1) / B(a, b), (panels, 3, K)."""
    constants = [
        math.log(2.0) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
        for a, b in zip(alphas.tolist(), betas.tolist(), strict=True)
    ]
    sines, cosines = np.log(np.sin(points))[..., None], np.log(np.cos(points))[..., None]
    logs: Floats = (2.0 * alphas - 1.0) * sines + (2.0 * betas - 1.0) * cosines + np.array(constants)
    return logs


def _mesh(alphas: Sequence[float], betas: Sequence[float]) -> list[float]:
    """Edges of panels, from where the first posterior begins to where the first one has ended."""
    centres = [math.asin(math.sqrt(a / (a + b))) for a, b in zip(alphas, betas, strict=True)]
    deviations = [0.5 / math.sqrt(a + b) for a, b in zip(alphas, betas, strict=True)]
    shapes = list(zip(centres, deviations, strict=True))
    end = min(0.5 * math.pi, *(centre + _REACH * deviation for centre, deviation in shapes))
    edges = [max(0.0, min(centre - _REACH * deviation for centre, deviation in shapes))]
    while edges[-1] < end:
        at = edges[-1]
        width = min(max(deviation, abs(at - centre) / _GROWTH) for centre, deviation in shapes)
        edges.append(at + min(width, max(at, _FIRST * width)))
    edges[-1] = end
    return edges
