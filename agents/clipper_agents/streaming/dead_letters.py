"""Stores records that could not be used, with the reason, on the dead letters' topic."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka import ConsumerRecord
from faust.types import TP

from clipper_agents.streaming.app import TaskRunner
from clipper_agents.streaming.offset_tracker import RecordBudget
from clipper_agents.streaming.outbox import Outbox, Record
from clipper_topics.catalogue import LARGEST_RECORD_BYTES
from clipper_topics.dead_letter import CUT, dead_letter_headers

KEPT_BYTES = LARGEST_RECORD_BYTES // 2
"""Most of a value that is kept. Only the topics between our own processes let larger ones in."""
HEADER_BYTES = 16
"""Bytes that the lengths of a header take at most."""
KEPT_BESIDE_BYTES = LARGEST_RECORD_BYTES // 8
"""Of a key, and of the original's headers: with the value they leave room for the headers that say what was wrong."""
MOST_WAITING, MOST_WAITING_BYTES = 2_000, 4 << 20
"""Of one partition, at which an agent reads it no further until they are stored."""

Refused = list[tuple[ConsumerRecord[Any, Any], BaseException]]
"""Records, each with why it was refused."""


class DeadLetterSender:
    """Stores dead letters in a task of its own, so that whoever finds bad records goes on with the good ones."""

    def __init__(self, outbox: Outbox, topic: str, tasks: TaskRunner) -> None:
        self._outbox, self._topic, self._tasks = outbox, topic, tasks
        self._queued: list[tuple[Refused, Callable[[], None]]] = []
        self._waiting: dict[TP, RecordBudget] = defaultdict(RecordBudget)
        self._is_sending = False

    def put(self, refused: Refused, stored: Callable[[], None]) -> None:
        """Store records, and then call `stored`, which acknowledges them."""
        self._queued.append((refused, stored))
        for record, _ in refused:
            self._waiting[TP(record.topic, record.partition)].add([record])
        if not self._is_sending:
            self._is_sending = True
            self._tasks.watched(self._send())

    def is_full(self, tp: TP) -> bool:
        """Return whether a partition is to be read no further until something of it is stored."""
        return tp in self._waiting and self._waiting[tp].above(MOST_WAITING, MOST_WAITING_BYTES)

    async def _send(self) -> None:
        while self._queued:
            some, self._queued = self._queued, []
            await send_dead_letters(self._outbox, self._topic, [one for refused, _ in some for one in refused])
            for refused, stored in some:
                for record, _ in refused:
                    self._waiting[TP(record.topic, record.partition)].remove([record])
                stored()
        self._is_sending = False


async def send_dead_letters(
    outbox: Outbox, topic: str, refused: Iterable[tuple[ConsumerRecord[Any, Any], BaseException]]
) -> None:
    """Store records, each with why it was refused, on the one partition of the dead letters' topic.

    A value of more than `KEPT_BYTES` is cut, and so are a key and headers that are too large: a record that no topic
    takes must not stop those behind it. A header `clipper-cut` says so.
    """
    letters = []
    for record, error in refused:
        letters.append(_letter(record, error))
        drop_tracebacks(error)
    if letters:
        await outbox.send(topic, 0, letters)


def drop_tracebacks(error: BaseException) -> None:
    """Drop the tracebacks of an error, whose frames hold the list that holds it: a cycle, which is seldom collected."""
    told: BaseException | None = error
    while told is not None:
        told.__traceback__ = None
        told = told.__cause__ or told.__context__


def _letter(record: ConsumerRecord[Any, Any], error: BaseException) -> Record:
    headers = list(record.headers)
    headers_bytes = sum(HEADER_BYTES + len(name.encode()) + len(content or b"") for name, content in headers)
    sizes = {
        "value": (len(record.value or b""), KEPT_BYTES),
        "key": (len(record.key or b""), KEPT_BESIDE_BYTES),
        "headers": (headers_bytes, KEPT_BESIDE_BYTES),
    }
    cut = [f"{what} of {size} bytes" for what, (size, most) in sizes.items() if size > most]
    if headers_bytes > KEPT_BESIDE_BYTES:
        headers.clear()
    headers += dead_letter_headers(record.topic, record.partition, record.offset, error)
    if cut:
        headers.append((CUT, ", ".join(cut).encode()))
    return record.key and record.key[:KEPT_BESIDE_BYTES], record.value and record.value[:KEPT_BYTES], headers
