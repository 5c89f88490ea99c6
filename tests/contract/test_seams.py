"""Where parts of the product meet: by objects with a Protocol and in one direction, not by handfuls of callables."""

from code_rules import Module, callable_names, constructors_of_many_callables, import_cycles, product


def test_no_constructor_takes_more_than_three_callables() -> None:
    modules = product().values()
    assert not [*constructors_of_many_callables(modules, callable_names(modules))]


def test_no_modules_import_each_other_not_even_for_types() -> None:
    assert import_cycles(product()) == []


MANY = """
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Alias = Callable[[int], str]

class Called(Protocol):
    def __call__(self) -> None: ...

class ByInit:
    def __init__(self, a: Callable[[], None], b: Alias, *, c: "Called", d: Callable[[], int] | None = None) -> None: ...

@dataclass
class ByFields:
    a: Alias
    b: Called
    c: Callable[[], None]
    d: Callable[[], int]

class Few:
    def __init__(self, a: Alias, b: Called, c: Callable[[], None], d: int) -> None: ...
"""


def test_a_constructor_of_four_callables_is_found() -> None:
    modules = [Module("many", MANY)]
    assert constructors_of_many_callables(modules, callable_names(modules)) == ["many.ByInit", "many.ByFields"]


def test_a_cycle_behind_type_checking_is_found_and_an_import_in_a_function_is_none() -> None:
    modules = {
        "p.a": Module("p.a", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.b import B\n"),
        "p.b": Module("p.b", "from p.a import A\n"),
        "p.c": Module("p.c", "import p.d\n"),
        "p.d": Module("p.d", "def late():\n    import p.c\n"),
    }
    assert import_cycles(modules) == ["p.a <-> p.b"]
