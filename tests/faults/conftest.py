"""The fault suite's two sizes, and its report."""

from pathlib import Path

import pytest
from faults.report import FaultReport

REPORT = pytest.StashKey[FaultReport]()
FOLDER = Path("fault-report")


class _Listener:
    """Takes the lines of each test, in the process that reports."""

    def __init__(self, report: FaultReport) -> None:
        self._report = report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and self._report.take(report.user_properties):
            self._report.write(FOLDER)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = FaultReport()
    if not hasattr(config, "workerinput"):  # with -n, the process that all others report to
        config.pluginmanager.register(_Listener(config.stash[REPORT]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    report = config.stash[REPORT]
    if report.lines:
        terminalreporter.section("faults")
        terminalreporter.write(report.markdown())
        terminalreporter.write_line(f"also in {FOLDER}/faults.md and faults.json")


@pytest.fixture
def fault_report(request: pytest.FixtureRequest) -> FaultReport:
    """Takes a line a case."""
    return FaultReport(request.node.user_properties)


@pytest.fixture
def short(request: pytest.FixtureRequest) -> bool:
    """Whether the suite runs in its short form, as a part of `make test`."""
    return bool(request.config.getoption("--short"))
