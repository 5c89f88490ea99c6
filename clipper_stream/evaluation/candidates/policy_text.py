"""A policy as the text that it is parsed from."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from clipper_stream.selection.policy import SelectionPolicy


def named(policy: SelectionPolicy) -> str:
    """Name and parameters, without those that have their defaults.

    >>> from clipper_stream.selection.registry import make_policy
    >>> named(make_policy("split", {"shares": {"svm:1": 0.9}})), named(make_policy("exp3"))
    ('split:svm:1=0.9', 'exp3')
    """
    said: list[str] = []
    for each in fields(policy):  # type: ignore[arg-type]  # every policy is a dataclass
        value = getattr(policy, each.name)
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        if value != default:
            said += [f"{key}={_short(one)}" for key, one in _pairs(each.name, value)]
    return policy.name + (f":{','.join(said)}" if said else "")


def _pairs(name: str, value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else [(name, value)]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
