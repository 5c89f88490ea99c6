"""The page about the architecture names files and functions that exist, and its walks stay short."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/architecture.md").read_text()
PLACES = (ROOT, ROOT / "topics", ROOT / "agents", ROOT / "loadgen")
WALKS = {"A query": 25, "A feedback": 12, "A deploy": 18}
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


def test_every_package_of_the_map_exists():
    picture = PAGE.split("## Packages")[1].split("\n\nA package imports")[0]
    named = set(re.findall(r"[a-z_]{4,}", picture))
    agents = {path.parent.name for path in (ROOT / "agents/clipper_agents").glob("*/__init__.py")}
    library = {path.parent.name for path in (ROOT / "clipper_stream").glob("*/__init__.py")}
    assert library <= named
    assert {"router", "host", "rollout", "replay", "control", "kafka", "streaming", "status", "supervisor"} <= agents
