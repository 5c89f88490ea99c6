"""How long to wait before a child that ended is started again."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential, bounded, and back at the start after a long run.

    >>> [Backoff().delay_s(failures) for failures in (1, 2, 3, 10)]
    [0.5, 1.0, 2.0, 30.0]

    Attributes:
        first_s: Wait before the first restart, in seconds.
        factor: Each further wait is so many times as long.
        longest_s: No wait is longer, in seconds.
        calm_s: A child that ran so long after it was ready starts again with `first_s`.
    """

    first_s: float = 0.5
    factor: float = 2.0
    longest_s: float = 30.0
    calm_s: float = 60.0

    def delay_s(self, failures: int) -> float:
        """The wait after so many failures in a row, the first is 1."""
        # Beyond 64 doublings the bound has long been reached, and a float would overflow.
        return min(self.longest_s, self.first_s * self.factor ** min(failures - 1, 64))
