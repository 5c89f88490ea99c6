"""The fault suite's two sizes, and its report."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.report import FaultReport

REPORT = pytest.StashKey[FaultReport]()
FOLDER = Path("fault-report")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = FaultReport()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    report = config.stash[REPORT]
    if report.lines:
        terminalreporter.section("faults")
        terminalreporter.write(report.markdown())
        report.write(FOLDER)
        terminalreporter.write_line(f"also in {FOLDER}/faults.md and faults.json")


@pytest.fixture
def fault_report(request: pytest.FixtureRequest) -> FaultReport:
    """Takes a line a case."""
    return request.config.stash[REPORT]


@pytest.fixture
def short(request: pytest.FixtureRequest) -> bool:
    """Whether the suite runs in its short form, as a part of `make test`."""
    return bool(request.config.getoption("--short"))
