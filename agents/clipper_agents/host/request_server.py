"""Between the topics and the engine: request records in, output records out, acknowledgements and dead letters.

Rules of this file:
- A request record is acknowledged when its frame is finished, or when it is safe among the dead letters.
- An acknowledgement counts in the generation in which the record was read, and in no other.
"""

from collections import defaultdict
from functools import partial
from typing import NamedTuple

from faust.types import TP

from clipper_agents.host.batch_traces import UNTRACED, BatchTraces, SentRows
from clipper_agents.host.engine import HostEngine
from clipper_agents.host.outputs import Reply, records_of
from clipper_agents.host.poison_rows import PoisonRows
from clipper_agents.host.request_rows import RequestRows, read_request
from clipper_agents.observability.metrics import ProcessMetrics
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.dead_letters import DeadLetterSender, Refused
from clipper_agents.streaming.outbox import Record
from clipper_agents.streaming.stream import Chunk, ChunkStream, newest_age_s
from clipper_topics.catalogue import Catalogue
from clipper_topics.frames import UnknownFrame

MAX_FRAMES = 256
"""Request records taken at once: what is taken is decoded before any of it reaches a batch."""


class FrameOrigin(NamedTuple):
    """Where a request frame was read."""

    tp: TP
    offset: int
    generation: int


class RequestServer:
    """Feeds an engine from the requests topic and answers on the outputs topic."""

    def __init__(
        self,
        app: ClipperApp,
        catalogue: Catalogue,
        metrics: ProcessMetrics,
        poison_rows: PoisonRows,
        traces: BatchTraces = UNTRACED,
    ) -> None:
        self._poison_rows, self._traces = poison_rows, traces
        self._app = app
        self._catalogue = catalogue
        self._metrics = metrics
        self._dead_letters = DeadLetterSender(app.outbox, catalogue.dead_letters, app)
        self._stream: ChunkStream | None = None

    async def serve(self, stream: ChunkStream, engine: HostEngine[FrameOrigin]) -> None:
        """The agent: runs until the app stops."""
        self._stream = stream
        async for chunk in stream.chunks(MAX_FRAMES, self._dead_letters.is_full):
            self._metrics.histogram("clipper_stage_latency_seconds", "request").observe(newest_age_s(chunk))
            await engine.submit(self._readable(chunk, stream.generation))

    async def send(self, reply: Reply[FrameOrigin]) -> None:
        """Send output frames; returns when the broker has them."""
        topic, records, traced = self._catalogue.outputs, list[Record](), list[SentRows]()
        for piece, run in zip(reply.pieces, reply.runs, strict=True):
            headers = self._traces.sending(run, len(records), traced) if run.frame.request.traced else ()
            records += [(None, record, headers) for record in records_of(piece)]
        offsets = await self._app.outbox.send(topic, reply.partition, records)
        if traced:
            self._traces.sent(topic, reply.partition, offsets, traced)

    def finished(self, origins: list[FrameOrigin]) -> None:
        """Acknowledge the requests of finished frames."""
        offsets: dict[tuple[TP, int], list[int]] = defaultdict(list)
        for origin in origins:
            offsets[origin.tp, origin.generation].append(origin.offset)
        for (tp, generation), finished in offsets.items():
            if self._stream is not None:
                self._stream.ack(tp, finished, generation)

    def _readable(self, chunk: Chunk, generation: int) -> list[tuple[FrameOrigin, RequestRows]]:
        """Return the frames of a chunk; what is no frame goes to the dead letters."""
        frames: list[tuple[FrameOrigin, RequestRows]] = []
        refused: Refused = []
        origins: list[FrameOrigin] = []
        for tp, record in ((tp, record) for tp, records in chunk for record in records):
            origin = FrameOrigin(tp, record.offset, generation)
            try:
                request = read_request(record.value, self._catalogue.partitions, record.headers)
                frames.append((origin, self._poison_rows.marked(request)))
            except UnknownFrame as error:
                refused.append((record, error))
                origins.append(origin)
        for record, why in refused:
            self._metrics.counter("clipper_dead_letters_total", record.topic, type(why).__name__).inc()
        if refused:
            self._dead_letters.put(refused, partial(self.finished, origins))
        return frames
