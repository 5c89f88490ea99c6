"""The Faust agent `gather`: takes the outputs that hosts send to this process."""

from collections.abc import Callable
from functools import partial
from typing import Any

from aiokafka import ConsumerRecord
from faust.types import TP

from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.pipeline import QueryPipeline
from clipper_agents.router.requests import RequestSender
from clipper_agents.streaming.dead_letters import DeadLetterSender, Refused
from clipper_agents.streaming.stream import Chunk, newest_age_s
from clipper_topics.frames import OutputFrame, UnknownFrame, decode_output

FRAMES_A_CHUNK = 256
MEMORY_CHUNKS = 10
"""Chunks over which the time that outputs are on their way back is smoothed."""


class OutputAgent:
    """Decodes output frames and gives those of this process to the router."""

    def __init__(
        self,
        identity: bytes,
        pipeline: QueryPipeline,
        sender: RequestSender,
        dead_letters: DeadLetterSender,
        metrics: RouterMetrics,
    ) -> None:
        self._identity, self._pipeline, self._sender = identity, pipeline, sender
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
            self._pipeline.gather(mine)
            self._measure_return(chunk)

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

    def _measure_return(self, chunk: Chunk) -> None:
        took_s = newest_age_s(chunk)
        self._metrics.histogram("clipper_stage_latency_seconds", "return").observe(took_s)
        router = self._pipeline.router
        router.return_s += (took_s - router.return_s) / MEMORY_CHUNKS
