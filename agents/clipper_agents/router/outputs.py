"""The Faust agent `gather`: takes the outputs that hosts send to this process."""

import time
from typing import Any

from aiokafka import ConsumerRecord

from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.effects import EffectRunner
from clipper_agents.router.requests import RequestSender
from clipper_agents.streaming.dead_letters import send_dead_letters
from clipper_agents.streaming.outbox import Outbox
from clipper_agents.streaming.stream import Chunk
from clipper_stream.query import Router
from clipper_topics.catalogue import Catalogue
from clipper_topics.frames import OutputFrame, UnknownFrame, decode_output

FRAMES_A_CHUNK = 256
MEMORY_CHUNKS = 10
"""Chunks over which the time that outputs are on their way back is smoothed."""


class OutputAgent:
    """Decodes output frames and gives those of this process to the router.

    Args:
        identity: Of this process; frames for another router are not ours.
        router: Is told how long outputs are on their way back.
        effects: Takes the outputs.
        sender: Counts the rows that its replicas have yet to answer.
        outbox: Sends dead letters.
        catalogue: Names the topics.
        metrics: Counts dead letters.
    """

    def __init__(
        self,
        identity: bytes,
        router: Router,
        effects: EffectRunner,
        sender: RequestSender,
        outbox: Outbox,
        catalogue: Catalogue,
        metrics: RouterMetrics,
    ) -> None:
        self._identity, self._router, self._effects, self._sender = identity, router, effects, sender
        self._outbox, self._catalogue, self._metrics = outbox, catalogue, metrics

    async def serve(self, stream: Any) -> None:
        """Serve chunks of records until the process stops."""
        async for chunk in stream.chunks(FRAMES_A_CHUNK):
            generation = stream.generation
            frames = await self._decode(chunk)
            mine = [frame for frame in frames if frame.router == self._identity]
            for frame in mine:
                self._sender.count_answered(frame.frame, len(frame.outputs))
            self._effects.gather(mine)
            self._measure_return(chunk)
            for tp, records in chunk:
                stream.ack(tp, [record.offset for record in records], generation)

    async def _decode(self, chunk: Chunk) -> list[OutputFrame]:
        """Decode the frames of a chunk; other records go to the dead letters."""
        frames: list[OutputFrame] = []
        refused: list[tuple[ConsumerRecord[Any, Any], UnknownFrame]] = []
        for _, records in chunk:
            for record in records:
                try:
                    frames.append(decode_output(record.value or b""))
                except UnknownFrame as error:
                    refused.append((record, error))
        if refused:
            await send_dead_letters(self._outbox, self._catalogue.dead_letters, refused)
            self._metrics.count_dead_letters(self._catalogue.outputs, "undecodable", len(refused))
        return frames

    def _measure_return(self, chunk: Chunk) -> None:
        """Update the smoothed time that outputs take from the host to this process."""
        took_s = max(0.0, time.time() - max(records[0].timestamp for _, records in chunk) / 1000)
        self._router.return_s += (took_s - self._router.return_s) / MEMORY_CHUNKS
