"""The losses of one model under the eye of a detector, and what they were before and after a change.

Rules of this file:
- A detector says that the mean has changed, not since when: the losses are split where one change is most likely.
- Memory is bounded: the last `KEPT` losses are kept, and number and sum of those before them.
- After a detection the watch begins anew with the next loss. So later detections depend on later losses alone.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from clipper_stream.drift.detectors import Detector, DetectorSpec

KEPT = 2_000
"""Losses: far more than a detection takes; one that takes longer is dated to the oldest of them at worst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossChange:
    """A detected change of a model's mean loss, in [0, 1].

    Of the `losses` since the last detection, or since the beginning, these are `after` the estimated change.
    """

    losses: int
    after: int
    loss_before: float
    loss_after: float


@dataclass(slots=True)
class LossWatch:
    """A detector, and the losses that it has read.

    >>> from clipper_stream.drift.detectors import Adwin
    >>> watch = LossWatch(Adwin())
    >>> next(found for at in range(400) if (found := watch.observe(float(at >= 200))))
    LossChange(losses=224, after=24, loss_before=0.0, loss_after=1.0)

    Raises:
        ModelNotLoaded: a library is missing.
    """

    spec: DetectorSpec
    _detector: Detector = field(init=False)
    _count: int = field(init=False, default=0)
    _older_sum: float = field(init=False, default=0.0)
    _kept: deque[float] = field(init=False, default_factory=lambda: deque(maxlen=KEPT))

    def __post_init__(self) -> None:
        self._detector = self.spec.make()

    def observe(self, loss: float) -> LossChange | None:
        """Take in a loss, in [0, 1]; return the change when the detector sees one."""
        if len(self._kept) == KEPT:
            self._older_sum += self._kept[0]
        self._kept.append(loss)
        self._count += 1
        if not self._detector.update(loss):
            return None
        change = self._change()
        self.begin_anew()
        return change

    def begin_anew(self) -> None:
        """Forget every loss."""
        self._detector, self._count, self._older_sum = self.spec.make(), 0, 0.0
        self._kept.clear()

    def _change(self) -> LossChange:
        kept = np.array(self._kept)
        older = self._count - len(kept)
        at = most_likely_split(kept, older, self._older_sum)
        before = older + at
        return LossChange(
            losses=self._count,
            after=len(kept) - at,
            loss_before=float((self._older_sum + kept[:at].sum()) / before) if before else float(kept.mean()),
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
