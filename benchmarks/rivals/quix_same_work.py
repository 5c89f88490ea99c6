"""The same work as ours on Quix Streams: a stateful `apply` on RocksDB, in Kafka's transactions.

State, predictions and offsets are exactly once, a checkpoint a second.

What it cannot do: batch (state belongs to one record's key), so one row a model call; answer at the deadline while it
is idle or busy: there are no timers; write to a partition of choice; share weights between partitions. State belongs to
a key: here to the part of the id that names the partition.
"""

from datetime import timedelta
from typing import Any

from common import BOOTSTRAP, COMMIT_S, FEEDBACK, FOLDER, GROUP, LINGER_MS, OBJECTIVES_MS, PREDICTIONS, QUERIES
from quixstreams import Application, State
from quixstreams.models import BytesDeserializer, BytesSerializer
from same_work import HORIZON_S, Received, Work

TTL = timedelta(seconds=HORIZON_S)


class PartitionOfKey(BytesDeserializer):
    """`2` of `2-00c1...`: what state is kept by."""

    def __call__(self, value: bytes, ctx: Any) -> bytes:  # noqa: ARG002
        return value.partition(b"-")[0]


class PredictionOf(BytesSerializer):
    """The second of a query id and its prediction."""

    def __call__(self, value: tuple[str, bytes], ctx: Any) -> bytes:  # noqa: ARG002
        return value[1]


class Mapping:
    """One of the mappings, in the state of the key that is at work."""

    state: State

    def __init__(self, name: str, ttl: timedelta | None) -> None:
        self._name, self._ttl = name, ttl

    def get(self, key: str) -> bytes | None:
        return self.state.get_bytes(f"{self._name}/{key}")

    def __setitem__(self, key: str, value: bytes) -> None:
        self.state.set_bytes(f"{self._name}/{key}", value, self._ttl)


MAPPINGS = [Mapping("decisions", TTL), Mapping("scored", TTL), Mapping("losses", None), Mapping("outputs", TTL)]
WORK = Work(*MAPPINGS, OBJECTIVES_MS)


def step(record: tuple[bool, bytes], _: Any, timestamp_ms: int, __: Any, state: State) -> list[tuple[str, bytes]]:
    for each in MAPPINGS:
        each.state = state
    is_query, value = record
    if is_query:
        return WORK.answer([Received(value, timestamp_ms)])
    WORK.learn([value])
    return []


app = Application(
    broker_address=BOOTSTRAP,
    consumer_group=GROUP,
    state_dir=FOLDER / "state",
    auto_offset_reset="earliest",
    commit_interval=COMMIT_S,
    processing_guarantee="exactly-once",
    producer_extra_config={"linger.ms": LINGER_MS},
    loglevel="WARNING",
)
of_partition = {"key_deserializer": PartitionOfKey(), "value_deserializer": "bytes"}
queries = app.dataframe(app.topic(QUERIES, **of_partition)).apply(lambda value: (True, value))
feedback = app.dataframe(app.topic(FEEDBACK, **of_partition)).apply(lambda value: (False, value))
answers = queries.concat(feedback).apply(step, stateful=True, metadata=True, expand=True)
predictions = app.topic(PREDICTIONS, value_serializer=PredictionOf(), key_serializer="str")
answers.to_topic(predictions, key=lambda answer: answer[0])

if __name__ == "__main__":
    app.run()
