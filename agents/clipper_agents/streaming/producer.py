"""Faust's producer with the settings that lose nothing in an outage."""

from collections.abc import Mapping
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

    def _new_producer(self, transactional_id: str | None = None) -> aiokafka.AIOKafkaProducer:
        producer = super()._new_producer(transactional_id)
        producer._message_accumulator._batch_ttl = BATCH_MAX_AGE_S
        return producer
