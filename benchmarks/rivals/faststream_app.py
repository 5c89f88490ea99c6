"""FastStream on aiokafka and uvloop: a batch subscriber and a batch publisher.

At least once: a batch is published, then committed, before the next one is read. A published batch goes to one
partition and must fit one aiokafka batch, whose default of 16 KiB is too small for it.
"""

from typing import Any

import uvloop
from common import BATCH, BOOTSTRAP, GROUP, LINGER_MS, PREDICTIONS, QUERIES, answers
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker, KafkaPublishMessage

BATCH_BYTES = 900 * 1024

broker = KafkaBroker(BOOTSTRAP, acks="all", linger_ms=LINGER_MS, max_batch_size=BATCH_BYTES, log_level=30)
predictions = broker.publisher(PREDICTIONS, batch=True)


@broker.subscriber(
    QUERIES,
    group_id=GROUP,
    batch=True,
    max_records=BATCH,
    auto_offset_reset="earliest",
    ack_policy=AckPolicy.NACK_ON_ERROR,
)
async def score(queries: list[dict[str, Any]]) -> None:
    found = answers(queries)
    await predictions.publish(*(KafkaPublishMessage(answer, key=answer["query_id"].encode()) for answer in found))


if __name__ == "__main__":
    uvloop.run(FastStream(broker).run())
