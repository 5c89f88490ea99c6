"""What is made by a name, and what to write instead of a name that there is not."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, TypeVar

from clipper_stream.errors import InvalidSetting, UnknownName, shown

T = TypeVar("T")


def choices(given: str, known: Iterable[str]) -> str:
    """The names to write instead of one, the nearest first.

    >>> choices("proceses", ["data_dir", "processes"]), choices("x", ["data_dir"])
    ('did you mean processes? use one of data_dir, processes', 'use one of data_dir')
    """
    names = [*known]
    nearest = "".join(f"did you mean {name}? " for name in get_close_matches(given, names, 1))
    return f"{nearest}use one of {', '.join(names)}" if names else "there is none"


def make_named(what: str, kinds: Mapping[str, Callable[..., T]], name: str, parameters: Mapping[str, Any]) -> T:
    """What has this name, made with these parameters; each kind is a dataclass.

    Raises:
        UnknownName: there is no such kind.
        InvalidSetting: there is no such parameter, or its value is outside its bounds.
    """
    if (kind := kinds.get(name)) is None:
        raise UnknownName(f"{what} {shown(name)}: {choices(name, sorted(kinds))}")
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for parameter in parameters:
        if parameter not in known:
            raise InvalidSetting(f"parameter {parameter!r} of {what} {name!r}: {choices(parameter, known)}")
    return kind(**parameters)
