"""An operator who decides about each version by an A/B test of a fixed size, and what the answers lose meanwhile.

Rules of this file:
- The size is that of power analysis for two proportions: two-sided alpha 0.05, power 0.8, the loss of what answers now.
- One decision, at the end: promoted is a version whose loss is lower by the pooled z test, else it goes.
- The next version is tried with the next query.

Source: Fleiss, Levin and Paik, "Statistical Methods for Rates and Proportions", 3rd edition, chapters 3 and 4.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

ALPHA, POWER = 0.05, 0.8
Z = NormalDist().inv_cdf(1.0 - ALPHA / 2)
Floats = NDArray[np.float64]
Order = NDArray[np.int64]
"""Which query is asked, by number of its row."""


def sample_size(loss: float, difference: float, share: float) -> int:
    """Queries of a test, of which a share is answered by the new version.

    >>> sample_size(loss=0.1, difference=0.02, share=0.5)
    7064

    Args:
        loss: Of what answers now, in (0, 1).
        difference: That is to be found with the power.
        share: Of the new version, in (0, 1).
    """
    z = Z + NormalDist().inv_cdf(POWER)
    return math.ceil(z**2 * loss * (1.0 - loss) / (share * (1.0 - share)) / difference**2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What became of ten versions, and of the queries that were asked meanwhile and afterwards.

    Attributes:
        promoted: By version, the incumbent not among them.
        deployed: Number of the query at which each was, the incumbent at 0, (versions,).
        ends: Number of the query at which it was decided about each, the incumbent not among them.
        lost: Loss of each answer, (queries,).
    """

    promoted: Sequence[bool]
    deployed: Sequence[int]
    ends: Sequence[int]
    lost: Floats

    @property
    def kept(self) -> int:
        """The version that answers in the end."""
        return max((version for version, promoted in enumerate(self.promoted, 1) if promoted), default=0)

    def right(self, means: Floats) -> list[bool]:
        """Whether each was promoted if it loses less than what answered then, and went if not."""
        incumbent, found = 0, []
        for version, promoted in enumerate(self.promoted, 1):
            found.append(promoted == bool(means[version] < means[incumbent]))
            incumbent = version if promoted else incumbent
        return found

    def regret(self, losses: Floats, order: Order) -> float:
        """What the answers lose more than the best version that was deployed by then, on the same queries.

        Args:
            losses: Of each version on each row, (versions, rows).
            order: The rows that were asked, (queries,).
        """
        means, best = losses.mean(axis=1), 0
        ends, least = [*self.deployed[1:], len(order)], np.empty(len(order))
        for version, (begin, end) in enumerate(zip(self.deployed, ends, strict=True)):
            best = version if means[version] < means[best] else best
            least[begin:end] = losses[best, order[begin:end]]
        return float((self.lost - least).sum())

    def regret_of_all(self, losses: Floats, order: Order) -> float:
        """The same beside the best of all versions, from the first query on."""
        return float((self.lost - losses[losses.mean(axis=1).argmin(), order]).sum())


def fixed_sample_course(losses: Floats, order: Order, difference: float, share: float, seed: int) -> Course:
    """Test one version after the other on the same queries; arguments as of `Course.regret` and `sample_size`."""
    rng, means = np.random.default_rng(seed), losses.mean(axis=1)
    lost, at, kept = np.empty(len(order)), 0, 0
    promoted, deployed, ends = list[bool](), [0], list[int]()
    for version in range(1, len(losses)):
        end = min(len(order), at + sample_size(float(means[kept]), difference, share))
        rows, new = order[at:end], rng.random(end - at) < share
        deployed.append(at)
        lost[at:end] = np.where(new, losses[version, rows], losses[kept, rows])
        promoted.append(_is_lower(lost[at:end][new], lost[at:end][~new]))
        ends.append(end)
        at, kept = end, version if promoted[-1] else kept
    lost[at:] = losses[kept, order[at:]]
    return Course(promoted=promoted, deployed=deployed, ends=ends, lost=lost)


def _is_lower(new: Floats, old: Floats) -> bool:
    if not len(new) or not len(old):
        return False
    pooled = np.concatenate([new, old]).mean()
    error = math.sqrt(pooled * (1.0 - pooled) * (1.0 / len(new) + 1.0 / len(old)))
    return bool(error > 0.0 and (new.mean() - old.mean()) / error < -Z)
