"""The same work as ours on Bytewax, one worker: a stateful batch operator keyed by partition, with a recovery store.

What it cannot do: batch across keys (a batch is what one poll of one partition found); read a result back upstream, so
choice, cache, decisions and sums are one operator and one state; write part of a state, so that each epoch pickles all
of it (ten seconds, its default, not one); state and predictions exactly once (a crash repeats an epoch of
predictions, with other draws); answer at the deadline while the model runs; share weights between partitions.
"""

import time
from datetime import datetime
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kafka
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from common import BATCH, BOOTSTRAP, FEEDBACK, FOLDER, LINGER_MS, OBJECTIVES_MS, PREDICTIONS, QUERIES
from same_work import Received, TwoGenerations, Work


class PartitionLogic(StatefulBatchLogic[KafkaSourceMessage, KafkaSinkMessage, list[TwoGenerations]]):
    """The state of one partition."""

    def __init__(self, resumed: list[TwoGenerations] | None) -> None:
        self._state = resumed or [TwoGenerations() for _ in range(4)]
        self._work = Work(*self._state, OBJECTIVES_MS)

    def on_batch(self, values: list[KafkaSourceMessage]) -> tuple[list[KafkaSinkMessage], bool]:
        self._work.learn(record.value for record in values if record.topic == FEEDBACK)
        queries = [record for record in values if record.topic == QUERIES]
        answers = self._work.answer([Received(record.value, record.timestamp[1]) for record in queries])
        for each in self._state:
            each.forget(time.time())
        return [
            KafkaSinkMessage(query_id.encode(), prediction, partition=record.partition)
            for record, (query_id, prediction) in zip(queries, answers, strict=True)
        ], StatefulBatchLogic.RETAIN

    def notify_at(self) -> datetime | None:
        return None

    def snapshot(self) -> list[TwoGenerations]:
        return [each.copy() for each in self._state]


def partition_of(record: Any) -> str:
    return str(record.partition)


flow = Dataflow("same-work")
records = kafka.input("records", flow, brokers=[BOOTSTRAP], topics=[QUERIES, FEEDBACK], batch_size=BATCH)
keyed = op.key_on("partition", records.oks, partition_of)
predictions = op.key_rm("predictions", op.stateful_batch("work", keyed, PartitionLogic))
settings = {"acks": "all", "linger.ms": str(LINGER_MS)}
kafka.output("out", predictions, brokers=[BOOTSTRAP], topic=PREDICTIONS, add_config=settings)

if __name__ == "__main__":
    store = FOLDER / "recovery"
    store.mkdir(parents=True)
    init_db_dir(store, 1)
    cli_main(flow, recovery_config=RecoveryConfig(store))
