"""Writes to the control topic by compare-and-set, with Kafka's fencing of transactional producers.

begin (fences every earlier writer) --> read to the end --> decide --> write manifests and changes in one transaction
   ^------------------------- fenced by a later writer, or Kafka was away: again -----------|

Rules of this file:
- A writer fences all others *before* it reads, and commits only when its first record stands where it has read to:
  either what it decided on is the whole log, or nothing is written. No end that a broker names is believed.
- An application's manifest and the record of its change are written together or not at all.
- Revisions only rise, also over a deletion, so no record of a change is ever replaced by another.
- A change whose commit was not answered is looked for before it is made again.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Self, TypeVar

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced, UnknownError

from clipper_agents.control.change_records import Signature, is_committed, records_of, sign
from clipper_agents.control.errors import StaleRevision, WriteContention
from clipper_agents.control.plan import Plan
from clipper_agents.control.selection_states import StateSnapshot, read_snapshot
from clipper_agents.control.state import ControlState, control_state, require_control_topic
from clipper_agents.kafka.clients import make_producer, send_in_transaction, unreachable
from clipper_agents.kafka.errors import NoCoordinator, UnreadRecords
from clipper_agents.kafka.reader import LogReader
from clipper_agents.kafka.retry import COMMANDS, TIMEOUT_S, is_transient
from clipper_stream.client.kafka import stop
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

ATTEMPTS = 12
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 3.0
"""A writer needs a tenth of a second or two, and loses them when another begins meanwhile: who was fenced stays away
for a random time that doubles, so that ten at once come to an end one after the other."""
TRANSACTION_TIMEOUT_MS = 10_000
"""A broker aborts the transaction of a writer that died after this time, unless another writer has fenced it before."""
T = TypeVar("T")
Decide = Callable[[ControlState], Plan]


class ControlWriter:
    """The one writer of the control topic, until another one begins.

    Attributes:
        state: What the control topic says, since the block was entered.
    """

    def __init__(self, connection: KafkaConnection, catalogue: Catalogue) -> None:
        self._connection, self._catalogue = connection, catalogue
        self._topics: dict[str, int] = {}
        self._producer: AIOKafkaProducer | None = None
        self._reader = LogReader(connection, policy=COMMANDS)
        self.state = ControlState()
        self._read_upto: int | None = None

    async def __aenter__(self) -> Self:
        self._topics = await require_control_topic(self._connection, self._catalogue)
        try:
            await self._begin()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _begin(self) -> None:
        self._producer = make_producer(
            self._connection,
            transactional_id=self._catalogue.control_writer,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        )
        await self._reader.start()  # first: from the producer's start on, every other writer is fenced
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._producer.start()
        except TimeoutError as error:
            raise NoCoordinator(
                f"no broker keeps the transactions of {self._catalogue.control_writer} after {TIMEOUT_S:.0f} s: is "
                "transaction.state.log.replication.factor of the brokers at most their number?"
            ) from error
        self.state = await control_state(self._reader, self._catalogue)
        self._read_upto = self._reader.positions[TopicPartition(self._catalogue.control, 0)]

    async def _stop(self) -> None:
        if self._producer is not None:
            await stop(self._producer)
        await self._reader.close()

    async def snapshot(self, applications: Sequence[str]) -> StateSnapshot:
        return await read_snapshot(self._reader, self._catalogue, self._topics, applications)

    async def write(self, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Write records, decided on `state`, in one transaction; when it returns, whoever reads sees them.

        Nothing is written with `ProducerFenced` (another writer has begun) and `UnreadRecords` (`state` is not all that
        the topic says); with any other error of Kafka's, or a timeout, that is not known.
        """
        assert self._producer is not None, "not entered"
        async with asyncio.timeout(TIMEOUT_S):
            end = await send_in_transaction(self._producer, self._catalogue.control, 0, records, self._read_upto)
            if end is not None:  # a commit is answered before its marker is written
                written = TopicPartition(self._catalogue.control, 0)
                await self._reader.read({written: end - 1}, lambda *_: None, {written: end})
        self._read_upto = None  # what is written next follows what was written now


async def change_control(
    connection: KafkaConnection,
    catalogue: Catalogue,
    decide: Decide,
    signature: Signature | None = None,
    *,
    seen: Mapping[str, int] | None = None,
) -> Plan:
    """Decide on the present state, write the plan, and return it signed; begin again when another writer interrupts.

    Without a signature the author is the user of this process. `seen` says at which revisions applications must be, 0
    that one must not exist: else the error is `StaleRevision`. Others are those of `decide` and `as_control_writer`.
    """
    signature = signature or Signature()
    tried: Plan | None = None
    snapshot: StateSnapshot | None = None  # costly to read, so it is kept from attempt to attempt

    async def make(writer: ControlWriter) -> Plan:
        nonlocal tried, snapshot
        if tried is not None and is_committed(tried, writer.state):
            return tried
        check_seen(seen or {}, writer.state)
        plan = decide(writer.state)
        if plan and snapshot is None:
            snapshot = await writer.snapshot([each.application for each in plan.changes if each.before is not None])
        tried = sign(plan, writer.state, signature, snapshot or StateSnapshot(), round(time.time() * 1000))
        if plan:
            await writer.write(records_of(tried))
        return tried

    return await as_control_writer(connection, catalogue, make)


async def as_control_writer(
    connection: KafkaConnection, catalogue: Catalogue, act: Callable[[ControlWriter], Awaitable[T]]
) -> T:
    """Act as the one writer, at each attempt anew; begin again when another writer interrupts.

    Raises:
        WriteContention: other writers came between at each of `ATTEMPTS` attempts.
        KafkaUnreachable: no broker answers.
        NoCoordinator: brokers answer, but none of them keeps transactions.
        TopicMismatch: there is no control topic.
    """
    reason: BaseException | None = None
    for number in range(ATTEMPTS):
        if number:
            longest_s = min(FIRST_WAIT_S * 2 ** (number - 1), LONGEST_WAIT_S)
            await asyncio.sleep(random.uniform(0.0, longest_s))  # noqa: S311 - so that two do not meet for ever
        try:
            async with ControlWriter(connection, catalogue) as writer:
                return await act(writer)
        except (ProducerFenced, UnreadRecords) as error:
            reason = error
        except (KafkaError, TimeoutError) as error:
            if not interrupted(error):
                raise await unreachable(connection, error) from error
            reason = error
    raise WriteContention(
        f"{ATTEMPTS} attempts to write to {catalogue.control} were interrupted ({reason!r}): "
        "is another command running in a loop? Try again"
    ) from reason


def interrupted(error: Exception) -> bool:
    """Return whether to begin again: no broker answered, or the outcome of the transaction is unknown.

    The coordinator says the latter (error -1) when another writer begins just while a transaction is being ended.
    """
    return is_transient(error) or isinstance(error, UnknownError) or isinstance(error.__cause__, UnknownError)


def check_seen(seen: Mapping[str, int], state: ControlState) -> None:
    """Check that applications are at the revisions that were seen.

    Raises:
        StaleRevision: names both.
    """
    for name, revision in seen.items():
        current = state.current(name)
        if current != revision:
            there = f"is at revision {current}" if current else "does not exist"
            raise StaleRevision(
                f"application {name} {there}, you saw {revision}: look at it again with "
                f"`clipper-stream application history {name}`"
            )
