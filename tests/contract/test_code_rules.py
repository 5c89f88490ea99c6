"""The code holds its rules, and each rule is seen to fail on a sample that breaks it."""

from collections.abc import Callable

import pytest
from code_rules import (
    ROOT,
    Module,
    classes_of_one_name,
    fragments,
    imported_by_no_product,
    is_riddle,
    long_test_names,
    modules_below,
    over_budget,
    product,
    riddles,
)

from clipper_stream.models.registry import RUNTIMES
from clipper_stream.selection.registry import POLICIES

PRODUCT = product()
TESTS = modules_below("tests", ROOT / "tests")
ENTRY_POINTS = (
    "clipper_agents.cli.main",  # the command line program
    "clipper_agents.examples.models",  # named as a URI, `clipper_agents.examples.models:sum_of_row`
    "clipper_stream.caching.dict_store",  # for programs that use the library without RocksDB
    "clipper_stream.evaluation.log.arrays",  # for logs of other systems
)
"""Modules that users name, and no module of the product."""

BUDGETS = {
    "clipper_agents": 25,
    "clipper_agents.broker": 1035,
    "clipper_agents.cli": 4100,
    "clipper_agents.control": 2155,
    "clipper_agents.dead_letters": 370,
    "clipper_agents.demo": 1240,
    "clipper_agents.examples": 75,
    "clipper_agents.feedback": 445,
    "clipper_agents.host": 1440,
    "clipper_agents.kafka": 2455,
    "clipper_agents.observability": 990,
    "clipper_agents.replay": 5110,
    "clipper_agents.rollout": 1730,
    "clipper_agents.router": 4385,
    "clipper_agents.settings": 780,
    "clipper_agents.status": 1825,
    "clipper_agents.streaming": 2585,
    "clipper_agents.supervisor": 1670,
    "clipper_loadgen": 1495,
    "clipper_stream": 180,
    "clipper_stream.batching": 765,
    "clipper_stream.caching": 280,
    "clipper_stream.client": 1175,
    "clipper_stream.combining": 200,
    "clipper_stream.drift": 350,
    "clipper_stream.evaluation": 5305,
    "clipper_stream.feedback": 535,
    "clipper_stream.models": 3050,
    "clipper_stream.query": 2800,
    "clipper_stream.selection": 1875,
    "clipper_stream.sequential_testing": 880,
    "clipper_topics": 2810,
}
"""Lines that a package may have. A raise is recorded in docs/explanation/decisions.md, under Line budgets."""


PACKAGES = {".".join(name.split(".")[:2]) for name in PRODUCT if name.count(".") > 1}


def package_of(name: str) -> str:
    package = ".".join(name.split(".")[:2])
    return package if package in PACKAGES else name.partition(".")[0]


def lines_by_package() -> dict[str, int]:
    lines: dict[str, int] = {}
    for name, module in PRODUCT.items():
        lines[package_of(name)] = lines.get(package_of(name), 0) + module.lines
    return lines


def registered() -> set[str]:
    """Modules that a registry makes reachable by name (runtimes, policies, commands), and the registries."""
    by_registry = {*RUNTIMES.values(), *POLICIES.values()}
    names = {getattr(entry, "__module__", None) or getattr(entry, "__name__", "") for entry in by_registry}
    return names | {name for name in PRODUCT if name.startswith("clipper_agents.cli.") or name.endswith(".registry")}


def test_no_class_name_stands_twice_in_the_product() -> None:
    assert classes_of_one_name(PRODUCT.values()) == []


def test_no_module_has_a_name_that_is_a_riddle() -> None:
    assert riddles(PRODUCT.values()) == []


def test_nothing_in_the_wheel_is_used_by_tests_and_examples_alone() -> None:
    assert imported_by_no_product(PRODUCT, ENTRY_POINTS) == []


def test_no_small_module_serves_a_single_neighbour() -> None:
    assert fragments(PRODUCT, registered()) == []


def test_every_package_keeps_its_budget_of_lines() -> None:
    assert over_budget(lines_by_package(), BUDGETS) == []


def test_no_test_has_a_name_of_more_than_eighty_characters() -> None:
    assert long_test_names(TESTS.values()) == []


ONE = Module("pkg.one", "class Answer: ...\n")
TWO = Module("pkg.two", "from pkg import one\n\nclass Answer: ...\n")


@pytest.mark.parametrize(
    ("rule", "sample"),
    [
        (classes_of_one_name, [ONE, TWO]),
        (riddles, [Module("pkg.asking", "")]),
        (riddles, [Module("pkg.scored", "")]),
        (long_test_names, [Module("test_x", f"def test_{'a' * 80}(): ...\n")]),
    ],
)
def test_a_rule_of_modules_fails_when_it_is_broken(rule: Callable[[list[Module]], list[str]], sample: list[Module]):
    assert rule(sample) != []


def test_a_module_that_nobody_imports_is_found_unless_it_is_an_entry_point() -> None:
    product = {module.name: module for module in (ONE, TWO)}
    assert imported_by_no_product(product, []) == ["pkg.two"]
    assert imported_by_no_product(product, ["pkg.two"]) == []


def test_a_fragment_is_found_unless_it_has_two_importers_or_a_registry() -> None:
    product = {module.name: module for module in (ONE, TWO)}
    assert fragments(product, []) == ["pkg.one (1 lines)"]
    assert fragments(product, ["pkg.one"]) == []
    assert fragments({**product, "pkg.three": Module("pkg.three", "import pkg.one\n")}, []) == []


def test_a_package_over_its_budget_or_without_one_is_found() -> None:
    assert over_budget({"pkg": 11, "new": 1}, {"pkg": 10}) == ["new: 1 lines, 0 allowed", "pkg: 11 lines, 10 allowed"]
    assert over_budget({"pkg": 10}, {"pkg": 10}) == []


@pytest.mark.parametrize("stem", ["batching", "prediction_log", "with_trials", "single"])
def test_a_name_of_the_field_is_no_riddle(stem: str) -> None:
    assert not is_riddle(stem)
