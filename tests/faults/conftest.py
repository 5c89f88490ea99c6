"""The fault suite's two sizes, its report, and the machine: some cases have it to themselves."""

import fcntl
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from embedded_cluster import EmbeddedCluster
from faults.deployment import Deployment
from faults.report import FaultReport

from clipper_agents.broker import EmbeddedBroker
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

REPORT = pytest.StashKey[FaultReport]()
FOLDER = Path("fault-report")
MACHINE = Path(tempfile.gettempdir()) / "clipper-stream-faults.lock"


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


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """With -n, let cases run side by side, but those that are measured alone (before their timeout begins)."""
    with MACHINE.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    report = config.stash[REPORT]
    if report.lines:
        terminalreporter.section("faults")
        terminalreporter.write(report.table())
        terminalreporter.write_line(f"also in {FOLDER}/faults.md and faults.json")


@pytest.fixture
def fault_report(request: pytest.FixtureRequest) -> FaultReport:
    """Takes a line a case."""
    return FaultReport(request.node.user_properties)


@pytest.fixture
def short(request: pytest.FixtureRequest) -> bool:
    """Whether the suite runs in its short form, as a part of `make test-all`."""
    return bool(request.config.getoption("--short"))


@pytest.fixture
def deployment(kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path) -> Deployment:
    return Deployment.on(kafka, catalogue, tmp_path)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path / "kafka") as running:
        yield running


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster(data_dir=tmp_path / "kafka") as running:
        yield running
