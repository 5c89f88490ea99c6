"""Applications that ask at a steady rate, whatever the answers do, and tell the truth about each answer."""

import heapq
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar

from confluent_kafka import Producer
from e2e.any_client import AS_JAVA, IMPATIENT, MSGPACK, AnyClient, Record
from msgspec.msgpack import encode as pack

APPLICATIONS = ("picks", "picks", "blends", "blends", "chooses", "slow")
LONGEST_ID = 20_000
FINISH_S = 300.0
"""For the last answers: other programs may have the machine."""
T = TypeVar("T")
CONTEXTS = (None, None, "ada", "alan", "grace")
Told = tuple[bytes | None, int, bytes]
"""A feedback: key, partition and value."""


class Held(Generic[T]):
    """What is sent later than now."""

    def __init__(self) -> None:
        self._heap, self._numbers = list[tuple[float, int, T]](), itertools.count()

    def push(self, delay_s: float, item: T) -> None:
        """Hold it for so long."""
        heapq.heappush(self._heap, (time.monotonic() + delay_s, next(self._numbers), item))

    def due(self, *, everything: bool = False) -> Iterator[T]:
        """Take out what was held for long enough."""
        while self._heap and (everything or self._heap[0][0] <= time.monotonic()):
            yield heapq.heappop(self._heap)[2]


class Traffic:
    """One thread asks, another reads the answers and tells; as a context manager it starts and stops them.

    Args:
        clock_errors_s: The clocks of the applications are wrong by one of these, in seconds.
        ids: Own ids begin with it.
        early_s: Of queries with an own id and a context, some are told about up to so long before they are asked.
        delay_s: Feedback comes up to so long after its answer, and so does its repetition.
        numbers: A row is made of so many different numbers; with few, most rows are cached soon.
    """

    def __init__(
        self,
        client: AnyClient,
        prefix: str,
        partitions: int,
        rate_per_s: float = 80.0,
        seed: int = 1,
        clock_errors_s: Sequence[float] = (0.0,),
        ids: str = "order",
        early_s: float = 0.0,
        delay_s: float = 0.0,
        numbers: int = 4,
    ) -> None:
        topics = (f"{prefix}.{name}" for name in ("queries", "predictions", "feedback"))
        self.queries, self.predictions, self.feedback = topics
        self.asked = self._named = 0
        self._client, self._partitions, self._interval_s = client, partitions, 1.0 / rate_per_s
        self._seed, self.clock_errors_s, self._ids = seed, clock_errors_s, ids
        self._early_s, self._delay_s, self._numbers = early_s, delay_s, numbers
        self._enough, self._all_answered = threading.Event(), threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._guarded, args=(work,)) for work in (self._ask, self._tell)]
        self._answered: set[tuple[int, int]] = set()

    def finish(self, refused: Callable[[], Collection[tuple[int, int]]] = tuple) -> None:
        """Ask no more, and wait until all is told, and all queries are answered or `refused`, dead letters."""
        self._enough.set()
        self._threads[0].join()
        every = {(one.partition, one.offset): one for one in self._client.read(self.queries)}
        end_s, pause_s = time.monotonic() + FINISH_S, 0.1
        while (open_queries := every.keys() - self._answered) and (open_queries := open_queries - {*refused()}):
            first = [every[place] for place in sorted(open_queries)[:3]]
            assert time.monotonic() < end_s, f"{len(open_queries)} of {len(every)} queries have no answer: {first}"
            assert not self._failures, self._failures
            self._all_answered.wait(pause_s)
            pause_s = min(5.0, 1.5 * pause_s)
        self._all_answered.set()
        self._threads[1].join()
        assert not self._failures, self._failures

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._all_answered.set()
        for thread in self._threads:
            thread.join()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told to the test by `finish`
            self._failures.append(error)

    def _producer(self) -> Producer:
        settings = {**IMPATIENT, **AS_JAVA, "enable.idempotence": True}  # else a retry doubles
        return Producer({"bootstrap.servers": self._client.bootstrap, **settings})

    def _now_ms(self, rng: random.Random) -> int:
        """What the clock of an application says, milliseconds since the epoch."""
        errors_s = self.clock_errors_s
        return round((time.time() + (rng.choice(errors_s) if len(errors_s) > 1 else errors_s[0])) * 1000)

    # --- asking -------------------------------------------------------------------------------------------------
    def _ask(self) -> None:
        rng, producer, held = random.Random(self._seed), self._producer(), Held[Mapping[str, Any]]()
        next_s = time.monotonic()
        while not self._enough.wait(max(0.0, next_s - time.monotonic())):
            next_s += self._interval_s
            content, early_s = self._query(rng), 0.0
            if self._early_s and content.keys() >= {"query_id", "context"} and rng.random() < 0.2:
                early_s = rng.uniform(0.0, self._early_s)
                about = {"query_id": content["query_id"], "application": content["application"], "loss": rng.random()}
                producer.produce(self.feedback, json.dumps(about).encode(), key=content["context"].encode())
            held.push(early_s, content)
            for due in held.due():
                self._send(due, rng, producer)
        for due in held.due(everything=True):
            self._send(due, rng, producer)
        assert producer.flush(60) == 0

    def _send(self, content: Mapping[str, Any], rng: random.Random, producer: Producer) -> None:
        as_msgpack = rng.random() < 0.2
        producer.produce(
            self.queries,
            pack(content) if as_msgpack else json.dumps(content).encode(),
            key=content["context"].encode() if "context" in content else None,
            headers=list(MSGPACK.items()) if as_msgpack else None,
            timestamp=self._now_ms(rng),
        )
        producer.poll(0)
        self.asked += 1

    def _query(self, rng: random.Random) -> dict[str, Any]:
        row = [rng.randrange(self._numbers) for _ in range(3)]
        content: dict[str, Any] = {"application": rng.choice(APPLICATIONS)}
        content |= {"inputs": [row, [1, 1, 1]]} if rng.random() < 0.2 else {"input": row}
        context = rng.choice(CONTEXTS)
        if context:
            content["context"] = context
        if rng.random() < 0.2:
            content["features"] = [rng.random() for _ in range(rng.randrange(1, 4))]
        if rng.random() < 0.5:
            self._named += 1
            content["query_id"] = f"{self._ids} {self._named}"
        return content

    # --- telling ------------------------------------------------------------------------------------------------
    def _tell(self) -> None:
        rng, producer, held = random.Random(self._seed + 1), self._producer(), Held[Told]()
        with self._client.reading(self.predictions) as reading:
            while True:
                last_look = self._all_answered.is_set()
                for answer in reading.more():
                    about = (answer.partition, answer.content["query_offset"])
                    if about not in self._answered:
                        self._tell_about(answer, rng, producer, held)
                        self._answered.add(about)
                for key, partition, told in held.due(everything=last_look):
                    producer.produce(self.feedback, told, key=key, partition=partition, timestamp=self._now_ms(rng))
                producer.poll(0)
                if last_look:
                    break
        assert producer.flush(60) == 0

    def _tell_about(self, answer: Record, rng: random.Random, producer: Producer, held: "Held[Told]") -> None:
        content = answer.content
        if len(content["query_id"]) + len(content.get("outputs", ())) + len(answer.key or b"") > LONGEST_ID:
            return  # somebody else's, and too long to be told about
        told = {"query_id": content["query_id"], **_truth(content, rng)}
        partition = answer.partition
        if rng.random() < 0.1:
            producer.produce(self.feedback, b"{" if rng.random() < 0.5 else b'{"query_id": "nobody", "loss": 1}')
        if "@" in content["query_id"] and rng.random() < 0.2:
            partition = (partition + 1) % self._partitions  # the id says where the decision is
        for _ in range(1 + (rng.random() < 0.1)):
            held.push(rng.uniform(0.0, self._delay_s), (answer.key, partition, json.dumps(told).encode()))


def _truth(content: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
    kind = rng.choice(("label", "label", "loss", "reward"))
    if kind != "label":
        return {kind: rng.random()}
    numbers = [rng.choice((3, 4.25, 6)) for _ in content.get("outputs", [None])]
    return {"label": numbers if "outputs" in content else numbers[0]}
