"""The files of the project fit together: packages, the wheel, folders of tests, versions and scripts."""

import re
import subprocess
import tomllib
from importlib import metadata

from sources import FOLDERS, MODULES, ROOT, relative

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONNECTED = {"answers", "blocking_client", "client", "evaluation", "http"}
"""Parts of the library that may touch Kafka or the wire records; all others are pure."""


def test_every_package_is_typed_and_in_the_wheel_and_a_pure_one_of_the_library_is_held_pure():
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {*wheel} == {*map(relative, FOLDERS)}
    assert all((folder / "py.typed").exists() for folder in FOLDERS)
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    held = {source for contract in contracts for source in contract.get("source_modules", [])}
    packages = {".".join(name.split(".")[:2]) for name in MODULES if name.startswith("clipper_stream.")}
    assert packages - {f"clipper_stream.{name}" for name in CONNECTED} <= held


def folders_of(modules):
    return {"/".join(relative(module).split("/")[:2]) for module in modules}


def test_every_folder_of_tests_is_collected_and_those_of_processes_where_the_makefile_looks():
    listed = PROJECT["tool"]["pytest"]["ini_options"]["testpaths"]
    assert folders_of((ROOT / "tests").rglob("test_*.py")) <= {*listed}
    (processes,) = re.findall(r"^PROCESSES := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    marks = re.compile(r"\bmark\.(integration|e2e|browser|faults|short)\b")
    marked = folders_of(module for module in (ROOT / "tests").rglob("*.py") if marks.search(module.read_text()))
    (by_folder,) = re.findall(r"^WITHIN_S = (.+)$", (ROOT / "tests/conftest.py").read_text(), re.MULTILINE)
    marked |= {f"tests/{folder}" for folder in re.findall(r'"(\w+)"', by_folder)}
    assert marked == {*processes.split()}


def test_the_version_is_said_in_one_place_and_the_changelog_has_one_for_the_next():
    assert metadata.version("clipper-stream") == PROJECT["project"]["version"]
    saying = re.compile(r"^__version__\s*=\s*[\"']", re.MULTILINE)
    assert [name for name, path in MODULES.items() if saying.search(path.read_text())] == []
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_scripts_of_the_continuous_integration_parse():
    for script in (path for path in (ROOT / ".ci").iterdir() if path.is_file() and path.suffix != ".py"):
        assert script.stat().st_mode & 0o111
        subprocess.run(["bash", "-n", str(script)], check=True)
