"""A low quantile of ratios as they come, in constant memory."""

from math import ceil, log2

from clipper_stream.selection.parameter_checks import check_number

_A_DOUBLING = 32
"""Bins between a ratio and its half: a quantile is read 2 % low at most."""
_DOUBLINGS = 40


class RatioQuantile:
    """The acceptance ratio: a quantile of min(1, 1 / importance) over the decisions so far, rounded down.

    Args:
        quantile: In [0, 1); 0 is the least of all.

    >>> ratio = RatioQuantile(0.0)
    >>> for importance in (0.5, 4.0, 0.0):
    ...     ratio.add(importance)
    >>> ratio.value
    1.0
    >>> ratio.renew()
    >>> ratio.value
    0.25

    Source: Dudik et al., UAI 2012, algorithm 1 (Q, q, c_max = 1). Masson, Rim and Lee, "DDSketch", VLDB 2019 (bins of
    equal ratio).
    """

    __slots__ = ("_bin", "_bins", "_count", "_lower", "_quantile", "value")

    def __init__(self, quantile: float) -> None:
        check_number("quantile", quantile, most=1.0)
        self._quantile = quantile
        self._bins = [0] * (_A_DOUBLING * _DOUBLINGS + 1)
        self._count = 0
        self._bin = 0
        self._lower = 0  # ratios in bins beyond `_bin`, which are lower ones
        self.value = 1.0

    def add(self, importance: float) -> None:
        """One more decision, which the candidate makes so much more often than the log."""
        place = 0 if importance <= 1.0 else min(len(self._bins) - 1, ceil(_A_DOUBLING * log2(importance)))
        self._bins[place] += 1
        self._count += 1
        if place > self._bin:
            self._lower += 1

    def renew(self) -> None:
        """Let the value follow what was added since the last time."""
        most = self._quantile * self._count
        while self._lower > most:
            self._bin += 1
            self._lower -= self._bins[self._bin]
        while self._bin > 0 and self._lower + self._bins[self._bin] <= most:
            self._lower += self._bins[self._bin]
            self._bin -= 1
        self.value = 2.0 ** (-self._bin / _A_DOUBLING)
