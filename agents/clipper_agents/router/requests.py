"""Requests to model hosts: one frame a model and batch, to the replica that has the fewest rows before it."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import aiokafka
import numpy as np
from aiokafka.errors import KafkaError

from clipper_stream.routing import Request
from clipper_topics.catalogue import Catalogue
from clipper_topics.frames import RequestFrame, encode_frame

logger = logging.getLogger(__name__)


def encode_request(request: Request, router: bytes, reply: int, dtype: str) -> bytes:
    """A request as a frame.

    Args:
        request: What to ask.
        router: Identity of this process.
        reply: Partition of the outputs topic that this process reads.
        dtype: Element type of the application's input spec.
    """
    rows = request.rows
    numeric = isinstance(rows, np.ndarray)
    return encode_frame(
        RequestFrame(
            router=router,
            frame=request.frame,
            reply=reply,
            dtype=str(rows.dtype) if isinstance(rows, np.ndarray) else dtype,
            shape=list(rows.shape) if isinstance(rows, np.ndarray) else [len(rows)],
            matrix=rows.tobytes() if isinstance(rows, np.ndarray) else b"",
            rows=[] if numeric else list(rows),
            deadlines=request.deadlines_s.astype("<f8").tobytes(),
        )
    )


class RequestSender:
    """Sends requests from a task of its own, so that nobody who decides ever waits for a broker.

    A request whose send fails is not sent again: its queries are answered at their deadlines, and that is counted.

    Args:
        producer: An aiokafka producer.
        catalogue: Names the topics.
        router: Identity of this process, in every frame.
        reply_partitions: The partitions of the outputs topic that this process reads now.
        dtype_of: Element type of non-numeric rows, by model reference.
    """

    def __init__(
        self,
        producer: aiokafka.AIOKafkaProducer,
        catalogue: Catalogue,
        router: bytes,
        reply_partitions: Callable[[], Sequence[int]],
        dtype_of: Callable[[str], str],
    ) -> None:
        self._producer, self._catalogue, self._router = producer, catalogue, router
        self._reply_partitions, self._dtype_of = reply_partitions, dtype_of
        self._waiting: list[Request] = []
        self._work = asyncio.Event()
        self._partitions: dict[str, list[int]] = {}
        self._outstanding: dict[str, dict[int, int]] = defaultdict(dict)
        self._asked: dict[int, tuple[str, int, int]] = {}

    async def open(self, ref: str) -> None:
        """Learn the partitions of a model's requests topic.

        Raises:
            KafkaError: there is no such topic yet, or no broker to ask.
        """
        found = await self._producer.partitions_for(self._topic(ref))
        if not found:
            raise KafkaError(f"no partitions of {self._topic(ref)}")
        self._partitions[ref] = sorted(found)

    def put(self, requests: Iterable[Request]) -> None:
        """Send these as soon as possible."""
        self._waiting.extend(requests)
        if self._waiting:
            self._work.set()

    def came_back(self, frame: int, rows: int) -> None:
        """So many rows of a request are answered."""
        asked = self._asked.get(frame)
        if asked is None:
            return
        ref, partition, left = asked
        self._outstanding[ref][partition] = max(0, self._outstanding[ref].get(partition, 0) - rows)
        if left <= rows:
            del self._asked[frame]
        else:
            self._asked[frame] = ref, partition, left - rows

    def forget_all(self) -> None:
        """Nothing is outstanding any more: the queries were dropped."""
        self._waiting.clear()
        self._outstanding.clear()
        self._asked.clear()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            requests, self._waiting = self._waiting, []
            for request in requests:
                await self._send(request)

    async def _send(self, request: Request) -> None:
        replies = self._reply_partitions()
        if not replies:
            return
        reply = replies[request.frame % len(replies)]
        partition = self._least_loaded(request)
        value = encode_request(request, self._router, reply, self._dtype_of(request.ref))
        try:
            future = await self._producer.send(self._topic(request.ref), value, partition=partition)
        except KafkaError as error:
            logger.warning("request not sent model=%s rows=%d reason=%r", request.ref, len(request.rows), error)
        else:
            future.add_done_callback(_note_failure)

    def _least_loaded(self, request: Request) -> int:
        outstanding = self._outstanding[request.ref]
        partition = min(self._partitions[request.ref], key=lambda number: outstanding.get(number, 0))
        rows = len(request.rows)
        outstanding[partition] = outstanding.get(partition, 0) + rows
        self._asked[request.frame] = request.ref, partition, rows
        return partition

    def _topic(self, ref: str) -> str:
        name, _, version = ref.partition(":")
        return self._catalogue.requests(name, version)


def _note_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        logger.warning("request lost reason=%r: its queries are answered at their deadlines", error)
