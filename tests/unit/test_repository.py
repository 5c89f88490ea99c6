"""What a reader of the repository relies on: small modules, a layout as described, links that lead somewhere."""

import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES_OF_A_MODULE = 400
SOURCES = {
    "clipper_topics": ROOT / "topics/clipper_topics",
    "clipper_stream": ROOT / "clipper_stream",
    "clipper_agents": ROOT / "agents/clipper_agents",
    "clipper_loadgen": ROOT / "loadgen/clipper_loadgen",
}
# the packages of the library that may touch Kafka or the wire records; all others are pure
CONNECTED = {"client", "evaluation", "http"}

FOLDERS = ("docs", "benchmarks", "examples")
MODULES = sorted(module for source in SOURCES.values() for module in source.rglob("*.py"))
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))]
    if "node_modules" not in page.parts
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages_below(source: Path) -> list[Path]:
    return sorted(path.parent for path in source.glob("*/__init__.py"))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links_of(page: Path) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets: list[str] = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [target for target in targets if not target.startswith(("http://", "https://", "mailto:"))]


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_no_module_is_longer_than_one_sitting(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= LINES_OF_A_MODULE


@pytest.mark.parametrize("name", SOURCES)
def test_every_package_is_typed_and_in_the_wheel(name: str) -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert (SOURCES[name] / "py.typed").exists()
    assert relative(SOURCES[name]) in wheel


@pytest.mark.parametrize("package", [p for source in SOURCES.values() for p in packages_below(source)], ids=relative)
def test_every_package_is_in_the_layout_of_the_readme(package: Path) -> None:
    layout = (ROOT / "README.md").read_text().split("## Layout")[1].split("\n## ")[0]
    assert f"`{package.name}/`" in layout


def test_every_pure_package_of_the_library_is_held_pure() -> None:
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    held = {source for contract in contracts for source in contract.get("source_modules", [])}
    pure = [
        path for path in SOURCES["clipper_stream"].iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    names = {path.stem for path in pure} - CONNECTED - {"__init__"}
    assert {f"clipper_stream.{name}" for name in names} <= held


def test_every_folder_of_tests_is_collected() -> None:
    listed = PROJECT["tool"]["pytest"]["ini_options"]["testpaths"]
    folders = {relative(module).split("/")[1] for module in (ROOT / "tests").rglob("test_*.py")}
    assert {f"tests/{folder}" for folder in folders} <= set(listed)


def test_tests_of_processes_are_where_the_makefile_looks_for_them() -> None:
    (listed,) = re.findall(r"^PROCESSES := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    marks = re.compile(r"\bmark\.(integration|e2e|browser|faults|short)\b")
    marked = {module for module in (ROOT / "tests").rglob("*.py") if marks.search(module.read_text())}
    assert {f"tests/{relative(module).split('/')[1]}" for module in marked} == set(listed.split())


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{relative(page)} links to {link}"
        assert not anchor or anchor in anchors_of(target), f"{relative(page)} links to {link}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=relative)
def test_every_page_is_in_the_index(page: Path) -> None:
    index = ROOT / "docs/README.md"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in links_of(index)}
    assert page == index or page in listed


def test_the_changelog_has_a_place_for_the_next_change() -> None:
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_version_is_said_in_one_place() -> None:
    version = PROJECT["project"]["version"]
    assert metadata.version("clipper-stream") == version
    assignments = [relative(m) for m in MODULES if re.search(r"^__version__\s*=\s*[\"']", m.read_text(), re.MULTILINE)]
    assert assignments == []


def test_the_makefile_has_the_commands_that_the_readme_gives() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    pages = "\n".join(page.read_text() for page in PAGES)
    assert set(re.findall(r"^\s*make ([a-z-]+)", pages, flags=re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_no_page_kills_processes_by_name(page: Path) -> None:
    assert re.findall(r"pkill|killall|kill [^\n]*pgrep", page.read_text()) == []


def test_the_scripts_of_the_continuous_integration_parse() -> None:
    for script in (path for path in (ROOT / ".ci").iterdir() if path.is_file() and path.suffix != ".py"):
        assert script.stat().st_mode & 0o111
        subprocess.run(["bash", "-n", str(script)], check=True)
