"""A page of the console before it is HTML, and the request that asks for one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from clipper_gateway.callers import Caller

NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a template is rendered with: `data` by name; `status` is that of HTTP."""

    template: str
    title: str
    data: Mapping[str, Any]
    status: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Who asks, with the parameters of the path and those of the query behind it."""

    caller: Caller
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def can_operate(self) -> bool:
        """Whether the caller may act."""
        return "operate" in self.caller.rights

    def sees(self, application: str) -> bool:
        """Return whether the caller may see an application."""
        return self.caller.sees(application)

    def text(self, name: str) -> str:
        """Return a parameter of the query, empty when it is not given."""
        return self.query.get(name, "").strip()

    def number(self, name: str, otherwise: float) -> float:
        """Return a parameter of the query as a number of at least 0; what is none counts as `otherwise`."""
        text = self.text(name)
        return float(text) if NUMBER.fullmatch(text) else otherwise


class Sheet(NamedTuple):
    """Some rows of a list that is shown in sheets, of which the first has number 1; `total` are all rows."""

    rows: Sequence[Any]
    number: int
    sheets: int
    total: int


def sheet_of(rows: Sequence[Any], request: PageRequest, size: int) -> Sheet:
    """Return the sheet of so many rows that the request's `sheet` names, or the nearest one.

    >>> request = PageRequest(caller=Caller("ada", None, frozenset()), query={"sheet": "9"})
    >>> sheet_of("abcde", request, 2)
    Sheet(rows='e', number=3, sheets=3, total=5)
    """
    sheets = max(1, -(-len(rows) // size))
    number = max(1, min(int(request.number("sheet", 1)), sheets))
    return Sheet(rows[size * (number - 1) : size * number], number, sheets, len(rows))
