"""The page about the architecture names files and functions that exist, and its walks stay short."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/architecture.md").read_text()
PLACES = (ROOT, ROOT / "topics", ROOT / "agents", ROOT / "loadgen")
WALKS = {"A query": 25, "A feedback": 12, "A deploy": 18}
OFF_THE_MAP = {"demo", "errors", "examples", "exits", "intervals", "observability", "threads"}
STEP = re.compile(r"`(?P<path>[\w/]+\.py)`|`(?P<name>[A-Za-z_][\w.]*)\(\)`")


def walk(title: str) -> list[tuple[str, str]]:
    """Modules and functions in the order of the section; a function belongs to the module before it."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    steps, path = [], ""
    for found in STEP.finditer(section):
        path = found["path"] or path
        steps.append((path, found["name"] or ""))
    return steps


def source_of(path: str) -> Path | None:
    return next((place / path for place in PLACES if (place / path).exists()), None)


def defined_in(source: Path) -> set[str]:
    """Functions, classes, and methods as `Class.method`."""
    found = set()
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            found |= {f"{node.name}.{method.name}" for method in methods}
    return found


@pytest.mark.parametrize("title", WALKS)
def test_every_file_and_function_of_a_walk_exists(title):
    steps = walk(title)
    assert len(steps) >= 10
    for path, name in steps:
        source = source_of(path)
        assert source, f"{path} does not exist"
        assert not name or name in defined_in(source), f"{path} has no {name}"


@pytest.mark.parametrize(("title", "most"), WALKS.items())
def test_a_walk_goes_through_no_more_modules_than_allowed(title, most):
    assert len({path for path, _ in walk(title)}) <= most


def layers_of(container: str) -> list[set[str]]:
    """Packages by layer, from the top, as import-linter has them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    contract = next(each for each in contracts if each.get("containers") == [container])
    layers = [set(re.findall(r"\w+", layer)) for layer in contract["layers"]]
    return [named for layer in layers if (named := {name for name in layer if name not in OFF_THE_MAP})]


@pytest.mark.parametrize("container", ["clipper_agents", "clipper_stream"])
def test_the_map_has_the_layers_of_the_import_linter(container):
    picture = PAGE.split(f"─ {container}: ")[1].split("─ clipper_")[0]
    lines = [re.split(r"\s{2,}", row)[0] for row in re.findall(r"│ (\w.*?) *│\n", picture)]
    assert [set(line.split(" · ")) for line in lines] == layers_of(container)
