"""The losses of one model under the eye of a detector, and what they were before and after a change.

Rules of this file:
- A loss is compared with those before it of the same hour of the day: what returns every day is no change. So on the
  first day a change is seen by the losses of its own hour alone.
- A detector says that the mean has changed, not since when: the losses are split where one change is most likely.
- Memory is bounded: the last `KEPT` losses are kept, and number and sum of all by hour.
- After a detection the watch begins anew with the next loss. So later detections depend on later losses alone.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from clipper_stream.drift.adwin import Adwin

KEPT = 2_000
"""Losses: far more than a detection takes; one that takes longer is dated to the oldest of them at worst."""
HOURS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class LossChange:
    """A detected change of a model's mean loss, in [0, 1].

    Attributes:
        losses: Read since the last detection, or since the beginning.
        after: Of them those after the estimated change.
        loss_before: Mean of those before it, in [0, 1]: for each loss after it, of those of the same hour of the day.
        loss_after: Mean of those after it, in [0, 1].
    """

    losses: int
    after: int
    loss_before: float
    loss_after: float


@dataclass(slots=True)
class LossWatch:
    """A detector, which `make` makes anew, and the losses that it has read.

    >>> watch = LossWatch(Adwin)
    >>> next(found for at in range(400) if (found := watch.observe(float(at >= 200))))
    LossChange(losses=224, after=24, loss_before=0.0, loss_after=1.0)

    Raises:
        ModelNotLoaded: a library is missing.
    """

    make: Callable[[], Adwin]
    _detector: Adwin = field(init=False)
    _counts: list[int] = field(init=False)
    _sums: list[float] = field(init=False)
    _kept: deque[tuple[float, int]] = field(init=False, default_factory=lambda: deque(maxlen=KEPT))

    def __post_init__(self) -> None:
        self.begin_anew()

    def observe(self, loss: float, hour: int = 0) -> LossChange | None:
        """Take in a loss, in [0, 1], of an hour of the day, 0 to 23; return the change when the detector sees one.

        What the detector reads are recursive residuals: uncorrelated and of one variance, however few losses of the
        hour there were before.

        Source: Brown, Durbin and Evans, "Techniques for testing the constancy of regression relationships over time",
        J. R. Stat. Soc. B 37, 1975, section 2.2.
        """
        count = self._counts[hour]
        deviation = (loss - self._sums[hour] / count) * math.sqrt(count / (count + 1)) if count else 0.0
        self._counts[hour] += 1
        self._sums[hour] += loss
        self._kept.append((loss, hour))
        if not self._detector.update(deviation):
            return None
        change = self._change()
        self.begin_anew()
        return change

    def begin_anew(self) -> None:
        """Forget every loss."""
        self._detector, self._counts, self._sums = self.make(), [0] * HOURS, [0.0] * HOURS
        self._kept.clear()

    def _change(self) -> LossChange:
        kept, hours = map(np.array, zip(*self._kept, strict=True))
        counts, sums = np.array(self._counts), np.array(self._sums)
        deviations = kept - (sums / np.maximum(counts, 1))[hours]
        at = most_likely_split(deviations, counts.sum() - len(kept), -deviations.sum())
        counts -= np.bincount(hours[at:], minlength=HOURS)
        sums -= np.bincount(hours[at:], kept[at:], HOURS)
        before = hours[at:][counts[hours[at:]] > 0]
        loss_before = (sums[before] / counts[before]).mean() if len(before) else kept.mean()
        return LossChange(
            losses=sum(self._counts),
            after=len(kept) - at,
            loss_before=float(np.clip(loss_before, 0.0, 1.0)),
            loss_after=float(kept[at:].mean()),
        )


def most_likely_split(values: "np.ndarray[tuple[int], np.dtype[np.float64]]", older: int, older_sum: float) -> int:
    """Where a single change of the mean is most likely: how many of the values come before it.

    The likelihood ratio of equal variances, largest where n0 n1 / (n0 + n1) times the squared difference of means is.

    >>> most_likely_split(np.array([0.0, 0.0, 0.0, 1.0, 1.0]), older=0, older_sum=0.0)
    3

    Args:
        values: At least one, in their order, shape (n,).
        older: How many values came before these.
        older_sum: Their sum.

    Source: Hinkley, "Inference about the change-point in a sequence of random variables", Biometrika 57, 1970.
    """
    total = older_sum + values.sum()
    sums = older_sum + np.concatenate(([0.0], np.cumsum(values)[:-1]))
    counts = older + np.arange(len(values))
    rest = len(values) - np.arange(len(values))
    means = np.divide(sums, counts, out=np.zeros(len(values)), where=counts > 0)
    gain = counts * rest / (counts + rest) * (means - (total - sums) / rest) ** 2
    return int(np.argmax(gain))
