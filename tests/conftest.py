"""Fixtures of every test: a Kafka for the session, and topics of one's own for each test."""

import logging
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings
from kafka_fixture import provided_kafka, temporary_topics

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

# no deadline per example, because machines that run tests are busy
settings.register_profile("tests", deadline=None, max_examples=50)
settings.load_profile("tests")

WITHIN_S = {"integration": 300, "e2e": 400}
"""Folders whose tests have a mark of the same name, and how long one of them may take unless it says otherwise."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kafka",
        choices=["auto", "container", "embedded"],
        default="auto",
        help="where the tests' Kafka comes from (auto: Docker if it answers, KAFKA_BOOTSTRAP_SERVERS, embedded)",
    )
    parser.addoption(
        "--seed", type=int, help="of the random schedule of the fault suite, to repeat one; absent: a new one"
    )
    parser.addoption("--short", action="store_true", help="the fault suite in the form that `make test-all` runs")
    parser.addoption("--strict-skips", action="store_true", help="fail when a test is skipped, as CI wants it")


def pytest_configure() -> None:
    """Have Ctrl-C reach what the tests start: a shell that starts them in the background has it ignored by all."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With --strict-skips, fail where a test was skipped: CI installs what tests look for."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not session.config.getoption("--strict-skips"):
        return
    if reasons := {str(report.longrepr[2]) for report in reporter.stats.get("skipped", ())}:
        reporter.write_line("\nskipped:\n" + "\n".join(sorted(reasons)), red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their folder; with --short, the modules that take longest come first.

    Two processes share those out, and are to end together.
    """
    for item in items:
        if (folder := item.path.parent.name) in WITHIN_S:
            item.add_marker(folder)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(WITHIN_S[folder]))
    if config.getoption("--short"):
        folders = ("faults", "e2e", "integration")
        items.sort(key=lambda item: next((n for n, folder in enumerate(folders) if folder in item.path.parts), -1))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The loop of tests and fixtures that are coroutines."""
    return "asyncio"


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[KafkaConnection]:
    """How to reach the session's Kafka; started when the first test asks for it."""
    with provided_kafka(request.config.getoption("--kafka")) as connection:
        yield connection


@pytest.fixture
def catalogue(kafka: KafkaConnection) -> Iterator[Catalogue]:
    """Topics of this test alone, 2 partitions each: created before it, deleted after it with all that joined them."""
    with temporary_topics(kafka) as own:
        yield own


@pytest.fixture(autouse=True)
def logging_as_before():
    """A command that runs in this process configures the logs of all of it, on a stream that ends with its test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
