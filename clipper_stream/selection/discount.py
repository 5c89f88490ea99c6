"""Forgetting: older feedback weighs less, so that a model that broke, or was repaired, is noticed."""

from clipper_stream.selection.parameter_checks import check_number


def check_half_life(half_life: float | None) -> None:
    """Refuse a half-life that is not a positive number.

    Raises:
        InvalidSetting: the half-life is neither None nor a finite number above 0.
    """
    if half_life is not None:
        check_number("half_life", half_life, above=0.0)


def discount_factor(half_life: float | None) -> float:
    """What every total is scaled by before one feedback is added.

    A state of several partitions forgets in each partition by the feedbacks of that partition: with P partitions
    evenly filled, the half-life of the whole is P times as many feedbacks. That keeps each partition's totals a
    function of that partition's log alone. A partition without feedback forgets nothing.

    Args:
        half_life: Feedbacks after which the weight of one has halved, > 0; None: never forget.

    >>> discount_factor(1.0), discount_factor(None)
    (0.5, 1.0)

    Source: Garivier and Moulines, "On upper-confidence bound policies for switching bandit problems", ALT 2011
    (their gamma is `keep`).
    """
    return 1.0 if half_life is None else 0.5 ** (1.0 / half_life)
