"""Parameters of policies: their bounds, and what a half-life means."""

import math
from dataclasses import field, fields
from typing import Any

from clipper_stream.errors import InvalidSetting


def check_number(
    name: str, value: Any, *, least: float = 0.0, most: float = math.inf, above: float = -math.inf
) -> None:
    """Refuse a value that is no finite number within `least <= value <= most` and `value > above`.

    >>> check_number("eta", 0.1, above=0.0)

    Raises:
        InvalidSetting: the value is no number, or lies outside.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and least <= value <= most and value > above):
        low = f"> {above:g}" if above >= least else f">= {least:g}"
        high = "" if most == math.inf else f" and <= {most:g}"
        raise InvalidSetting(f"{name} is {value!r}: give a number {low}{high}")


def bounded_field(default: float | None, **bounds: float) -> Any:
    """A parameter of a policy: a field with the bounds of `check_number`; None is taken where it is the default."""
    return field(default=default, metadata=bounds or {"least": 0.0})


def check_parameters(policy: Any) -> None:
    """Refuse a policy of which a parameter lies outside of its bounds.

    Raises:
        InvalidSetting: names the parameter.
    """
    for parameter in fields(policy):
        value = getattr(policy, parameter.name)
        if parameter.metadata and (value is not None or parameter.default is not None):
            check_number(parameter.name, value, **parameter.metadata)


def discount_factor(half_life: float | None) -> float:
    """The factor that scales every total before one feedback is added, so that older feedback weighs less.

    A state of several partitions forgets in each partition by the feedbacks of that partition: with P partitions
    evenly filled, the half-life of the whole is P times as many feedbacks. That keeps each partition's totals a
    function of that partition's log alone. A partition without feedback forgets nothing: for that, states age by time.

    Args:
        half_life: Feedbacks after which the weight of one has halved, > 0; None: never forget.

    >>> discount_factor(1.0), discount_factor(None)
    (0.5, 1.0)

    Source: Garivier and Moulines, "On upper-confidence bound policies for switching bandit problems", ALT 2011
    (their gamma).
    """
    return 1.0 if half_life is None else 0.5 ** (1.0 / half_life)
