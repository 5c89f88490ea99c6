"""Checks of parameters: what JSON, TOML or a keyword argument brought, against its bound."""

import math
from typing import Any

from clipper_stream.errors import InvalidSetting


def check_number(
    name: str, value: Any, *, least: float = 0.0, most: float = math.inf, above: float = -math.inf
) -> None:
    """Refuse what is no finite number within `least <= value <= most` and `value > above`.

    >>> check_number("eta", 0.1, above=0.0)

    Raises:
        InvalidSetting: the value is no number, or lies outside.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and least <= value <= most and value > above):
        low = f"> {above:g}" if above >= least else f">= {least:g}"
        high = "" if most == math.inf else f" and <= {most:g}"
        raise InvalidSetting(f"{name} is {value!r}: give a number {low}{high}")
