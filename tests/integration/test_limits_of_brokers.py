"""Brokers that are configured with narrower limits than Kafka's defaults are served, or it is said what to set."""

import asyncio

import pytest
from e2e.programs import environment_of, run

from clipper_agents import exits
from clipper_agents.broker import EmbeddedBroker
from clipper_agents.streaming.partition_writer import PartitionWriter
from clipper_topics.catalogue import Catalogue

pytestmark = pytest.mark.integration

NARROW = {"transaction.max.timeout.ms": 20_000, "group.min.session.timeout.ms": 20_000}


def test_narrow_limits_are_kept_or_told_in_a_line(tmp_path):
    """A router began anew for ever, with a traceback each time; it waited for ever, with one line of a library's."""
    catalogue = Catalogue(partitions=1)

    async def written(kafka):
        writer = PartitionWriter(kafka, catalogue.selection_changelog, 0)
        await writer.take_over()
        try:
            return await writer.write([(b"key", b"value", ())])
        finally:
            await writer.stop()

    with EmbeddedBroker(extra_properties=NARROW) as broker:
        environ = environment_of(broker.connection, catalogue)
        assert run("topics", "create", folder=tmp_path, environ=environ).code == exits.OK
        assert len(asyncio.run(written(broker.connection))) == 1
        router = run("worker", "router", "--instance", "router-0", folder=tmp_path, environ=environ)
        assert router.code == exits.SETUP
        assert "error: the brokers take no session of 10 s: set group.min.session.timeout.ms" in router.err[-1]
