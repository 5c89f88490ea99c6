"""Bytewax, one worker: Kafka source, `flat_map_batch` over each poll of a partition, Kafka sink.

At least once by its recovery store on disk, an epoch a second. Its sink flushes each batch before the next poll.
"""

from datetime import timedelta
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kafka
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from common import BATCH, BOOTSTRAP, COMMIT_S, FOLDER, LINGER_MS, PREDICTIONS, QUERIES, answers, decode, encode


def score(records: list[Any]) -> list[Any]:
    found = answers([decode(record.value) for record in records])
    return [KafkaSinkMessage(record.key, encode(answer)) for record, answer in zip(records, found, strict=True)]


flow = Dataflow("rival")
queries = kafka.input("queries", flow, brokers=[BOOTSTRAP], topics=[QUERIES], batch_size=BATCH)
predictions = op.flat_map_batch("score", queries.oks, score)
settings = {"acks": "all", "linger.ms": str(LINGER_MS)}
kafka.output("predictions", predictions, brokers=[BOOTSTRAP], topic=PREDICTIONS, add_config=settings)

if __name__ == "__main__":
    store = FOLDER / "recovery"
    store.mkdir(parents=True)
    init_db_dir(store, 1)
    cli_main(flow, epoch_interval=timedelta(seconds=COMMIT_S), recovery_config=RecoveryConfig(store))
