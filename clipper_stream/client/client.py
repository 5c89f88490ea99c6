"""Asks for predictions and gives feedback, from asyncio, and from threads without an event loop."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any, NamedTuple, Self, Unpack

from clipper_stream.answers import Answer, QueryOptions, Truth, all_answers, answer_of
from clipper_stream.blocking_client import BlockingClient, blocking, constructed_as
from clipper_stream.client.client_records import (
    Prepared,
    place_feedback,
    plain,
    prepare_feedback,
    prepare_query,
)
from clipper_stream.client.errors import BrokerUnavailable, ClientClosed, PredictionTimeout, QueryRefused
from clipper_stream.client.reader import PredictionReader, Waiting
from clipper_stream.client.send_spans import SendSpans
from clipper_stream.client.sender import RecordSender
from clipper_stream.errors import InvalidSetting
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import JSON, MSGPACK
from clipper_topics.connection import KafkaConnection
from clipper_topics.feedback import Feedback
from clipper_topics.prediction import REFUSALS, Prediction
from clipper_topics.query import Query


class AskedQuery(NamedTuple):
    """An answered query: the answer, the query's record, and the future metadata of the record in Kafka."""

    prediction: Prediction
    record: Prepared
    sent: "asyncio.Future[Any]"


TIMEOUT_S = 10.0
"""How long a call waits for its answer unless it says otherwise."""


class Client:
    """A client of one deployment, for any number of concurrent calls on one event loop.

        async with Client("localhost:9092") as client:
            answer = await client.predict("digits", [0.0, 0.5, 1.0])
            await client.feedback(answer, label=3)

    Args:
        kafka: `host:port[,host:port...]`, or a connection with TLS or SASL.
        prefix: Prefix of the deployment's topics.
        content_type: How queries and feedback are written: JSON, or msgpack, which costs the router less.
        send_timeout_s: How long to wait for Kafka's acknowledgement of a record, in seconds.
        raise_refusals: Whether a query at fault raises `QueryRefused`; else its answer is the default, with the reason.

    Raises:
        InvalidSetting: an unknown content type, or a timeout that is not above 0.
        InvalidConnection: the address is empty.
    """

    def __init__(
        self,
        kafka: str | KafkaConnection,
        *,
        prefix: str = "clipper",
        content_type: str = JSON,
        send_timeout_s: float = 5.0,
        raise_refusals: bool = True,
    ) -> None:
        if content_type not in (JSON, MSGPACK):
            raise InvalidSetting(f"content_type {content_type!r}: use {JSON} or {MSGPACK}")
        if not send_timeout_s > 0:
            raise InvalidSetting(f"send_timeout_s is {send_timeout_s}: give seconds above 0")
        self._kafka = KafkaConnection(kafka) if isinstance(kafka, str) else kafka
        self._topics = Catalogue(prefix=prefix)
        self._content_type = content_type
        self._send_timeout_s = send_timeout_s
        self._raise_refusals = raise_refusals
        self._partitions = 0
        self._waiting, self._spans = Waiting(), SendSpans()
        self._sender: RecordSender | None = None
        self._reader: PredictionReader | None = None

    async def open(self) -> None:
        """Connect, and stand at the end of the predictions.

        Raises:
            BrokerUnavailable: Kafka cannot be reached, or does not have the topics.
            AccessRefused: Kafka does not let us in: a password, a certificate or a right is not enough.
        """
        await self.close()
        waiting = Waiting()
        sender = RecordSender(self._kafka, self._send_timeout_s, self._content_type)
        await sender.open()
        try:
            partitions = await self._common_partitions(sender)
            reader = PredictionReader(self._kafka, self._topics.predictions, waiting)
            await reader.open(partitions)
        except BaseException:
            await sender.close()
            raise
        self._sender, self._reader, self._waiting, self._partitions = sender, reader, waiting, partitions

    async def close(self) -> None:
        """Fail the calls that still wait, and disconnect; a second time does nothing."""
        sender, reader = self._sender, self._reader
        self._sender = self._reader = None
        self._waiting.fail(lambda: ClientClosed("the client was closed while the call waited"))
        if reader is not None:
            await reader.close()
        if sender is not None:
            await sender.close()

    async def ended(self) -> None:
        """Return once the client reads no more answers: it was closed, or reading failed; open it again then."""
        if self._reader is not None:
            await self._reader.ended()

    @property
    def partitions(self) -> int:
        """Number of partitions of queries, predictions and feedback; 0 until it is open."""
        return self._partitions

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def predict(
        self,
        application: str,
        input: Any,  # noqa: A002 the record's word, and the builtin is not wanted here
        *,
        timeout_s: float = TIMEOUT_S,
        query_id: str | None = None,
        **options: Unpack[QueryOptions],
    ) -> Answer:
        """The answer to a query of one row.

        Args:
            application: Name of the application.
            input: One row: numbers, nested numbers, an array, text or bytes, as the application takes it.
            timeout_s: How long this call waits for the answer, in seconds.
            query_id: An id of the caller's own; an id that was asked before has the same answer again.
            options: Any of these. `context`: whose weights to use. `deadline_ms`: answer within so many milliseconds;
                the application's objective counts when it is shorter. `models`: ask exactly these models, `name` or
                `name:version`. `features`: numbers that a policy such as `lin_ucb` chooses by, at most 16.

        Raises:
            InvalidQuery: the query cannot be sent as it is.
            QueryRefused: its input does not fit, or there is no such application or model.
            RecordTooLarge: it is larger than Kafka takes.
            PredictionTimeout: no answer within `timeout_s`.
            BrokerUnavailable: Kafka did not take the query, or stopped delivering answers.
            ClientClosed: the client is not open, or was closed meanwhile.
        """
        asked = _query(application, query_id, **options)
        asked.input = plain(input)
        return await self._answer(asked, timeout_s)

    async def predict_many(
        self,
        application: str,
        inputs: Iterable[Any],
        *,
        timeout_s: float = TIMEOUT_S,
        **options: Unpack[QueryOptions],
    ) -> list[Answer]:
        """Ask one query an input, sent together and decided one by one; return the answers in order.

        Arguments and errors are those of `predict`; the options hold for every row, and the first error ends all calls.
        """
        return await all_answers(self.predict(application, row, timeout_s=timeout_s, **options) for row in inputs)

    async def predict_packed(
        self,
        application: str,
        inputs: Iterable[Any],
        *,
        timeout_s: float = TIMEOUT_S,
        query_id: str | None = None,
        **options: Unpack[QueryOptions],
    ) -> Answer:
        """Ask one query of several rows, decided together: much cheaper a row than a query each.

        Arguments and errors are those of `predict`; at least one row.
        """
        asked = _query(application, query_id, **options)
        asked.inputs = [plain(row) for row in inputs]
        return await self._answer(asked, timeout_s)

    async def feedback(
        self, query: Answer | str, *, context: str | None = None, **truth: Unpack[Truth]
    ) -> tuple[int, int]:
        """Say what was true about a query; return the partition and offset of the feedback once Kafka has it.

        Args:
            query: The answer, or the query's id.
            context: The query's context, needed with an id of the caller's own.
            truth: Exactly one of `label` (the true output; a list, one a row, for several rows), `loss` and `reward`
                (of the answer that was given, in [0, 1]); and `metrics` of it, numbers by name, that guardrails bound.

        Raises:
            InvalidFeedback: not exactly one of the three, a number outside [0, 1], or an unknown partition.
            BrokerUnavailable: Kafka did not take it.
            ClientClosed: the client is not open.
        """
        sender = self._opened()
        return await self._give(
            sender, prepare_feedback(query, truth, context, self._partitions, self._content_type), ()
        )

    async def give(
        self, feedback: Feedback, *, key: bytes | None = None, headers: Iterable[tuple[str, bytes]] = ()
    ) -> tuple[int, int]:
        """Send a feedback as its record has it, of plain values only; return its partition and offset.

        Args:
            feedback: The feedback.
            key: Key of the query's record where its id does not name the partition; absent: the query's context.
            headers: Further headers of the record.

        Raises:
            InvalidFeedback, BrokerUnavailable, ClientClosed: as `feedback`.
        """
        sender = self._opened()
        return await self._give(sender, place_feedback(feedback, key, self._partitions, self._content_type), headers)

    async def _give(
        self, sender: RecordSender, record: Prepared, headers: Iterable[tuple[str, bytes]]
    ) -> tuple[int, int]:
        topic, partition = self._topics.feedback, record.partition
        with self._spans.feedback(topic, partition, record.query_id, headers) as span:
            sent = await sender.begin(topic, partition, record.key, record.value, span.headers)
        sent.add_done_callback(span.done)
        return partition, await sender.offset(topic, sent)

    async def ask(
        self,
        query: Query,
        *,
        timeout_s: float = TIMEOUT_S,
        key: bytes | None = None,
        headers: Iterable[tuple[str, bytes]] = (),
    ) -> AskedQuery:
        """Ask a query as its record has it, of plain values only, and return the answer's record.

        Args:
            query: The query.
            timeout_s: How long to wait for the answer, in seconds.
            key: Key of the record; absent: the query's context or a digest of its input.
            headers: Further headers of the record.

        Raises:
            InvalidQuery, RecordTooLarge, PredictionTimeout, BrokerUnavailable, ClientClosed: as `predict`.
        """
        sender, topic = self._opened(), self._topics.queries
        record = prepare_query(query, self._partitions, self._content_type, key)
        sent: asyncio.Future[Any] | None = None

        def fail(done: "asyncio.Future[Any]") -> None:
            if not done.cancelled() and (error := done.exception()) is not None and not answered.done():
                answered.set_exception(sender.failed(topic, error))

        waiting, asked = self._waiting, (record.partition, record.query_id, query.application)
        answered, scope = waiting.begin(asked), asyncio.timeout(timeout_s)
        try:
            async with scope:
                with self._spans.query(topic, record.partition, record.query_id, headers) as span:
                    sent = await sender.begin(topic, record.partition, record.key, record.value, span.headers)
                sent.add_done_callback(span.done)
                sent.add_done_callback(fail)
                return AskedQuery(await answered, record, sent)
        except TimeoutError as error:
            if not scope.expired():
                raise
            offset = int(sent.result().offset) if sent is not None and sent.done() else None
            raise self._late(query.application, record, offset, timeout_s) from error
        finally:
            waiting.end(asked)

    async def _answer(self, query: Query, timeout_s: float) -> Answer:
        started_s = time.perf_counter()
        prediction, record, _ = await self.ask(query, timeout_s=timeout_s)
        latency_s = time.perf_counter() - started_s
        answer = answer_of(prediction, partition=record.partition, key=record.key, latency_s=latency_s)
        if self._raise_refusals and answer.reason in REFUSALS:
            raise QueryRefused(answer)
        return answer

    def _late(self, application: str, record: Prepared, offset: int | None, timeout_s: float) -> Exception:
        if offset is None:
            where = self._kafka.bootstrap
            return BrokerUnavailable(
                f"Kafka at {where} did not acknowledge the query within {timeout_s:g} s: is it running?"
            )
        topics = self._topics
        return PredictionTimeout(
            f"no answer of application {application!r} to query {record.query_id!r} within {timeout_s:g} s; it is "
            f"record {offset} of {topics.queries} partition {record.partition}: see whether a router (consumer group "
            f"{topics.router_group}) has read that far, and whether the query lies in {topics.dead_letters}",
            record.query_id,
        )

    def _opened(self) -> RecordSender:
        if self._sender is None:
            raise ClientClosed("the client is not open: use `async with Client(...) as client`")
        return self._sender

    async def _common_partitions(self, sender: RecordSender) -> int:
        names = (self._topics.queries, self._topics.predictions, self._topics.feedback)
        counts = {name: await sender.partitions(name) for name in names}
        if len(set(counts.values())) > 1:
            raise BrokerUnavailable(f"topics that must have equally many partitions differ: {counts}; recreate them")
        return counts[self._topics.queries]


def _query(application: str, query_id: str | None, **options: Unpack[QueryOptions]) -> Query:
    said: dict[str, Any] = {**options}
    if (models := options.get("models")) is not None:
        said["models"] = list(models)
    if (features := options.get("features")) is not None:
        said["features"] = [float(value) for value in features]
    return Query(application=application, query_id=query_id, **said)


class SyncClient(BlockingClient[Client]):
    """A client of one deployment whose calls block; it has the arguments, calls and errors of `Client`.

    with SyncClient("localhost:9092") as client:
        answer = client.predict("digits", [0.0, 0.5, 1.0])
        client.feedback(answer, label=3)
    """

    @constructed_as(Client.__init__)
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(Client(*arguments, **options), ClientClosed)

    predict = blocking(Client.predict)
    predict_many = blocking(Client.predict_many)
    predict_packed = blocking(Client.predict_packed)
    feedback = blocking(Client.feedback)
