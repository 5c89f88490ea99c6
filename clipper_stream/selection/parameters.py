"""Parameters of policies, and their bounds."""

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
