"""Requests to model hosts, one frame a model and batch, to the replica that has the fewest rows before it; and outputs.

Rules of this file:
- Nobody who decides ever waits for a broker, and no model waits for another: each has a lane of its own, from `open`
  to `close`.
- A request that cannot be sent fails at once, so that its queries are answered; one that was queued and then lost is an
  error, because it leaves a hole in the producer's sequence.
- What is counted as outstanding comes back, or is forgotten by the router; so counts end at zero.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError
from faust.types import TP

from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.applications import ApplicationRegistry
from clipper_agents.router.query_traces import UNTRACED, QueryTraces
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.dead_letters import DeadLetterSender, Refused
from clipper_agents.streaming.stream import newest_age_s
from clipper_stream.query import Request
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import OutputFrame, RequestFrame, UnknownFrame, decode_output, encode_frame

FRAMES_A_CHUNK = 256
OPEN_WITHIN_S = 2.0
"""aiokafka asks for a missing topic until the request timeout, which is much longer."""


class OutputReceiver(Protocol):
    """Receives outputs and failures of requests: the `QueryPipeline`, which they come from."""

    def gather(self, frames: Iterable[OutputFrame], /) -> None: ...
    def note_return(self, took_s: float, /) -> None: ...
    def fail(self, request: Request, reason: str, /) -> None: ...


def encode_request(request: Request, router: bytes, reply: int, dtype_of: Callable[[str], str]) -> bytes:
    """Encode a request, to be answered to a partition of the outputs topic, as a frame.

    `dtype_of` says what a model takes, for rows that are no matrix.
    """
    rows = request.rows
    return encode_frame(
        RequestFrame(
            router=router,
            frame=request.frame,
            reply=reply,
            dtype=rows.dtype.name if isinstance(rows, np.ndarray) else dtype_of(request.ref),
            shape=list(rows.shape) if isinstance(rows, np.ndarray) else [len(rows)],
            matrix=rows.tobytes() if isinstance(rows, np.ndarray) else b"",
            rows=[] if isinstance(rows, np.ndarray) else list(rows),
            deadlines=np.asarray(request.deadlines_s, "<f8").tobytes(),
        )
    )


@dataclass(slots=True)
class Lane:
    """Requests to one model version, in order, and the rows that each of its replicas has yet to answer."""

    topic: str
    waiting: deque[Request] = field(default_factory=deque)
    outstanding: Counter[int] = field(default_factory=Counter)
    sending: asyncio.Task[None] | None = None
    unacknowledged: int = 0


class RequestSender:
    """Sends requests, from a task for each model that has any."""

    def __init__(
        self,
        app: ClipperApp,
        catalogue: Catalogue,
        router: bytes,
        registry: ApplicationRegistry,
        receiver: OutputReceiver,
        traces: QueryTraces = UNTRACED,
    ) -> None:
        self._app, self._producer, self._catalogue, self._router = app, app.kafka_producer, catalogue, router
        self._registry, self._receiver, self._traces = registry, receiver, traces
        self._lanes: dict[str, Lane] = {}
        self._unanswered: dict[int, tuple[Lane, int, int]] = {}
        """Lane, replica and rows left of each request, by frame."""

    async def open(self, ref: str) -> None:
        """Find the requests topic of a model.

        Raises:
            KafkaError: there is no broker to ask.
            TimeoutError: there is no such topic yet.
        """
        topic = self._topic(ref)
        try:
            async with asyncio.timeout(OPEN_WITHIN_S):
                await self._producer.client.add_topic(topic)  # also if its partitions are in memory, from before
                await self._producer.partitions_for(topic)
        except (KafkaError, TimeoutError):
            self._unfollow(topic)
            raise
        self._lanes.setdefault(ref, Lane(topic))

    def close(self, ref: str) -> bool:
        """Close the lane of a model; return False while the broker has not acknowledged all its requests.

        A broker that creates topics on demand would create a deleted topic anew if the producer still followed it.
        """
        lane = self._lanes.get(ref)
        if lane is None:
            return True
        if lane.waiting or lane.sending is not None or lane.unacknowledged:
            return False
        del self._lanes[ref]
        self._unfollow(lane.topic)
        return True

    def put(self, request: Request) -> None:
        lane = self._lanes.get(request.ref)
        if lane is None:
            self._app.watched(self._refuse(request))
            return
        while lane.waiting and _is_overdue(lane.waiting[0]):
            lane.waiting.popleft()  # so that a replica without a leader costs no memory
        lane.waiting.append(request)
        if lane.sending is None:
            lane.sending = self._app.watched(self._send_all(lane))

    def count_answered(self, frame: int, rows: int) -> None:
        request = self._unanswered.get(frame)
        if request is None:
            return
        lane, partition, left = request
        lane.outstanding[partition] -= min(rows, left)
        if left <= rows:
            del self._unanswered[frame]
        else:
            self._unanswered[frame] = lane, partition, left - rows

    def forget(self, frames: Iterable[int]) -> None:
        """Count all rows of these requests as answered, because no query waits for them any more."""
        for frame in frames:
            if frame in self._unanswered:
                self.count_answered(frame, self._unanswered[frame][2])

    def forget_all(self) -> None:
        self._unanswered.clear()
        for lane in self._lanes.values():
            lane.waiting.clear()
            lane.outstanding.clear()

    async def _send_all(self, lane: Lane) -> None:
        while lane.waiting:
            request = lane.waiting.popleft()
            if not _is_overdue(request):
                await self._send(lane, request)
        lane.sending = None

    async def _refuse(self, request: Request) -> None:
        self._receiver.fail(request, f"{request.ref} is retired: no application asks it any more")

    async def _send(self, lane: Lane, request: Request) -> None:
        replies = self._app.owned_partitions(self._catalogue.outputs)
        replicas = self._producer.client.cluster.partitions_for_topic(lane.topic)
        if not replies or not replicas:
            self._receiver.fail(request, f"{request.ref} has no requests topic any more: deploy it again")
            return
        reply = replies[request.frame % len(replies)]
        value = encode_request(request, self._router, reply, self._registry.dtype_of)
        partition = min(sorted(replicas), key=lane.outstanding.__getitem__)
        lane.outstanding[partition] += len(request.rows)
        self._unanswered[request.frame] = lane, partition, len(request.rows)
        headers, sent = self._traces.sending(request) if request.traced else (None, None)
        try:
            future = await self._producer.send(lane.topic, value, partition=partition, headers=headers)
        except KafkaError as error:
            self.forget([request.frame])
            self._receiver.fail(request, f"the request to {request.ref} could not be sent: {error!r}")
        else:
            lane.unacknowledged += 1
            future.add_done_callback(partial(self._stored, lane))
            if sent is not None:
                future.add_done_callback(sent)

    def _stored(self, lane: Lane, future: "asyncio.Future[Any]") -> None:
        lane.unacknowledged -= 1
        self._app.watch(future)

    def _unfollow(self, topic: str) -> None:
        """Remove the topic from the producer's metadata, but keep its sequence numbers, as the broker does."""
        self._producer.client._topics.discard(topic)  # noqa: SLF001 (aiokafka only ever adds)

    def _topic(self, ref: str) -> str:
        name, _, version = ref.partition(":")
        return self._catalogue.requests(name, version)


class OutputAgent:
    """The Faust agent `gather`: takes the outputs that hosts send to this process, which has an identity."""

    def __init__(
        self,
        identity: bytes,
        receiver: OutputReceiver,
        sender: RequestSender,
        dead_letters: DeadLetterSender,
        metrics: RouterMetrics,
    ) -> None:
        self._identity, self._receiver, self._sender = identity, receiver, sender
        self._dead_letters, self._metrics = dead_letters, metrics

    async def serve(self, stream: Any) -> None:
        async for chunk in stream.chunks(FRAMES_A_CHUNK, self._dead_letters.is_full):
            generation = stream.generation
            frames: list[OutputFrame] = []
            for tp, records in chunk:
                frames += self._decode(tp, records, partial(stream.ack, tp, generation=generation))
            mine = [frame for frame in frames if frame.router == self._identity]
            for frame in mine:
                self._sender.count_answered(frame.frame, len(frame.outputs))
            self._receiver.gather(mine)
            self._receiver.note_return(newest_age_s(chunk))

    def _decode(
        self, tp: TP, records: list[ConsumerRecord[Any, Any]], acknowledge: Callable[[list[int]], None]
    ) -> list[OutputFrame]:
        """Decode frames, and acknowledge them: nobody needs them again. What is none goes to the dead letters."""
        frames: list[OutputFrame] = []
        refused: Refused = []
        for record in records:
            try:
                frames.append(decode_output(record.value or b""))
            except UnknownFrame as error:
                refused.append((record, error))
        bad = [record.offset for record, _ in refused]
        acknowledge([record.offset for record in records if record.offset not in bad])
        if refused:
            self._metrics.counter("clipper_dead_letters_total", tp.topic, "undecodable").inc(len(refused))
            self._dead_letters.put(refused, partial(acknowledge, bad))
        return frames


def _is_overdue(request: Request) -> bool:
    return max(request.deadlines_s) <= time.time()
