"""What a benchmark is expected to show, beside what it showed."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One expectation.

    Attributes:
        benchmark: Letter of the benchmark, as in the README of this folder.
        what: The figure in words, with its unit or `x` for a ratio.
        value: What was measured; None: it could not be.
        sense: Whether the value is to be at least or at most the bound.
        bound: The expectation.

    >>> Target(benchmark="A", what="router CPU, µs a query", value=19.0, sense="<=", bound=20.0).met
    True
    """

    benchmark: str
    what: str
    value: float | None
    sense: Literal["<=", ">="]
    bound: float

    @property
    def met(self) -> bool:
        """Whether it was shown."""
        if self.value is None:
            return False
        return self.value <= self.bound if self.sense == "<=" else self.value >= self.bound

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "met": self.met}


def target_of(found: Mapping[str, Any]) -> Target:
    """A target from `Target.as_dict`."""
    return Target(**{name: value for name, value in found.items() if name != "met"})


def show_targets(targets: Iterable[Target]) -> None:
    """The expectations as a table, those that were missed marked."""
    table = Table(title="expected and measured", title_justify="left")
    for column in ("", "figure", "expected", "measured", ""):
        table.add_column(column)
    for target in targets:
        value = "-" if target.value is None else f"{target.value:,.2f}"
        mark = "yes" if target.met else "[bold red]no[/]"
        table.add_row(target.benchmark, target.what, f"{target.sense} {target.bound:,.2f}", value, mark)
    Console().print(table)
