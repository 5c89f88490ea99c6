"""Faust's producer with the settings that lose nothing in an outage."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import aiokafka
from faust.transport.drivers import aiokafka as driver

from clipper_agents.streaming.faust_logs import LIBRARY

BATCH_MAX_AGE_S = 3600.0
"""How long a batch may wait for its broker. aiokafka uses the request timeout for this too; but an expired batch leaves
a hole in the idempotent sequence, and then every later batch is refused (OutOfOrderSequenceNumber)."""


class StrictProducer(driver.Producer):  # type: ignore[misc]  # faust's classes are untyped to mypy
    """Idempotent, acknowledged by all in-sync replicas, with short requests and patient batches."""

    logger = LIBRARY

    def _settings_extra(self) -> Mapping[str, Any]:
        return {**super()._settings_extra(), "acks": "all", "enable_idempotence": True}

    async def flush(self) -> None:
        """Nothing: whoever needs an acknowledgement awaits that of his own records.

        Faust flushes before each commit and in each rebalance. One partition without a leader would hold up both, and
        in the end cost this process its membership.
        """

    @cached_property
    def kafka_producer(self) -> aiokafka.AIOKafkaProducer:
        """The one client of the process, here before it is started, so that whatever sends can be built with it."""
        producer = super()._new_producer()
        producer._message_accumulator._batch_ttl = BATCH_MAX_AGE_S
        return producer

    def _new_producer(self, transactional_id: str | None = None) -> aiokafka.AIOKafkaProducer:  # noqa: ARG002 (Faust's)
        return self.kafka_producer
