"""The same work as ours in a loop by hand on confluent-kafka, with state in dictionaries: the limit.

What it cannot do: keep anything over a restart; count a feedback exactly once (a crash repeats up to a second of
records, on an empty state); answer at the deadline while the model runs or nothing is read: a query is late only
after its batch; hand its state over when partitions move.
"""

import time
from typing import Any

from common import FEEDBACK, OBJECTIVES_MS, PREDICTIONS, QUERIES
from confluent_kafka import Producer
from confluent_loop import check, main
from same_work import Received, TwoGenerations, Work

STATE = [TwoGenerations() for _ in range(4)]
WORK = Work(*STATE, OBJECTIVES_MS)


def step(producer: Producer, records: list[Any]) -> bool:
    good = [record for record in records if record.error() is None]
    WORK.learn(record.value() for record in good if record.topic() == FEEDBACK)
    queries = [record for record in good if record.topic() == QUERIES]
    answers = WORK.answer([Received(record.value(), record.timestamp()[1]) for record in queries])
    for record, (query_id, prediction) in zip(queries, answers, strict=True):
        producer.produce(PREDICTIONS, prediction, query_id, record.partition(), on_delivery=check)
    producer.poll(0)
    for each in STATE:
        each.forget(time.time())
    return bool(good)


if __name__ == "__main__":
    main([QUERIES, FEEDBACK], step)
