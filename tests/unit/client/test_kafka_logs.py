"""A client is quiet: what it logs, what aiokafka logs in its tasks, and what an application's logging keeps."""

import asyncio
import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest

from clipper_stream.client import BrokerUnavailable, Client
from clipper_stream.client.kafka_logs import OutageLog, quiet

CONNECTIONS = logging.getLogger("aiokafka.conn")


@pytest.fixture
def logged(caplog):
    """What is logged while nobody has set a level of aiokafka's."""
    for name in ("aiokafka", *(name for name in logging.Logger.manager.loggerDict if name.startswith("aiokafka."))):
        caplog.set_level(logging.NOTSET, name)
    caplog.set_level("DEBUG")
    return lambda: [record.getMessage() for record in caplog.records if record.name != "asyncio"]


async def test_a_client_that_finds_no_kafka_raises_and_logs_nothing(logged):
    with pytest.raises(BrokerUnavailable):
        await Client("127.0.0.1:1").open()
    assert logged() == []


async def test_what_aiokafka_says_in_tasks_of_a_client_alone_is_dropped(logged):
    async def say(words):
        CONNECTIONS.error(words)

    with quiet():
        CONNECTIONS.error("in the block")
        later = asyncio.create_task(say("in a task that began there"))
    await later
    await asyncio.create_task(say("of the application's own consumer"))
    assert logged() == ["of the application's own consumer"]


@pytest.mark.parametrize("name", ["aiokafka", "aiokafka.conn"])
def test_who_sets_a_level_of_aiokafka_has_its_records_from_there_on(logged, caplog, name):
    caplog.set_level(logging.WARNING, name)
    with quiet():
        CONNECTIONS.info("less than was asked for")
        CONNECTIONS.warning("asked for")
    assert logged() == ["asked for"]


def test_an_outage_is_a_line_at_its_begin_and_a_line_at_its_end(logged):
    cluster, forced = SimpleNamespace(), []
    outages = OutageLog(SimpleNamespace(cluster=cluster, force_metadata_update=lambda: forced.append(1)), "a:9092")
    for attempt_ms, success_ms in [(10, 10), (20, 10), (30, 10), (40, 40), (50, 50)]:
        cluster._last_refresh_ms, cluster._last_successful_refresh_ms = attempt_ms, success_ms
        outages.look()
    assert len(forced) == 2
    assert logged() == [
        "no Kafka answers at a:9092: calls wait for it until their time is over",
        "Kafka at a:9092 answers again",
    ]


IMPORTS = """
import logging
logging.basicConfig(level="INFO")
before = logging.root.level, list(logging.root.handlers)
import clipper_stream.client
loggers = [one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger)]
changed = [one.name for one in loggers if one.level or one.handlers or one.filters or not one.propagate]
assert (logging.root.level, list(logging.root.handlers)) == before
assert [name for name in changed if name.startswith(("aiokafka", "clipper"))] == [], changed
"""


def test_importing_the_client_changes_nothing_of_an_applications_logging():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
