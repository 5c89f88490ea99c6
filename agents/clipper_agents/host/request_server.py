"""Between the topics and the engine: request records in, output records out, acknowledgements and dead letters.

Rules of this file:
- A request record is acknowledged when its frame is finished, or when it is safe among the dead letters.
- An acknowledgement counts in the generation in which the record was read, and in no other.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from faust.types import TP
from msgspec.structs import replace

from clipper_agents.host.batching import Piece, RequestRows, read_request
from clipper_agents.host.engine import HostEngine
from clipper_agents.host.poison_rows import PoisonRows
from clipper_agents.observability.metrics import ProcessMetrics
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.dead_letters import DeadLetterSender, Refused
from clipper_agents.streaming.outbox import Record
from clipper_agents.streaming.stream import Chunk, ChunkStream, newest_age_s
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import FailedRow, OutputFrame, UnknownFrame, encode_frame

MAX_FRAMES = 256
"""Request records taken at once: what is taken is decoded before any of it reaches a batch."""
MAX_RECORD_BYTES = 512 * 1024
"""Half of the broker's default limit (1 MiB, Kafka `message.max.bytes`), which counts a whole produce batch."""


class FrameOrigin(NamedTuple):
    """Where a request frame was read."""

    tp: TP
    offset: int
    generation: int


class RequestServer:
    """Feeds an engine from the requests topic and answers on the outputs topic."""

    def __init__(self, app: ClipperApp, catalogue: Catalogue, metrics: ProcessMetrics, poison_rows: PoisonRows) -> None:
        self._app, self._catalogue, self._metrics, self._poison_rows = app, catalogue, metrics, poison_rows
        self._dead_letters = DeadLetterSender(app.outbox, catalogue.dead_letters, app)
        self._stream: ChunkStream | None = None

    async def serve(self, stream: ChunkStream, engine: HostEngine) -> None:
        self._stream = stream
        async for chunk in stream.chunks(MAX_FRAMES, self._dead_letters.is_full):
            self._metrics.histogram("clipper_stage_latency_seconds", "request").observe(newest_age_s(chunk))
            await engine.submit(self._readable(chunk, stream.generation))

    async def send(self, partition: int, pieces: Sequence[Piece]) -> None:
        """Send output frames; returns when the broker has them."""
        records: list[Record] = [(None, record, ()) for _, frame in pieces for record in records_of(frame)]
        await self._app.outbox.send(self._catalogue.outputs, partition, records)

    def finish(self, origins: list[FrameOrigin]) -> None:
        offsets: dict[tuple[TP, int], list[int]] = defaultdict(list)
        for origin in origins:
            offsets[origin.tp, origin.generation].append(origin.offset)
        for (tp, generation), finished in offsets.items():
            if self._stream is not None:
                self._stream.ack(tp, finished, generation)

    def _readable(self, chunk: Chunk, generation: int) -> list[RequestRows]:
        requests, origins = list[RequestRows](), list[FrameOrigin]()
        refused: Refused = []
        for tp, record in ((tp, record) for tp, records in chunk for record in records):
            origin = FrameOrigin(tp, record.offset, generation)
            try:
                request = read_request(record.value, self._catalogue.partitions, record.headers, origin)
            except UnknownFrame as error:
                refused.append((record, error))
                origins.append(origin)
                self._metrics.counter("clipper_dead_letters_total", record.topic, type(error).__name__).inc()
            else:
                if self._poison_rows.by_frame:
                    self._poison_rows.mark(request)
                requests.append(request)
        if refused:
            self._dead_letters.put(refused, partial(self.finish, origins))
        return requests


def records_of(piece: OutputFrame, max_bytes: int = MAX_RECORD_BYTES) -> list[bytes]:
    """The piece as one record or, halved until they fit, as several; a single row that is larger fails, saying so.

    >>> piece = OutputFrame(router=b"r", frame=1, row0=0, outputs=["x" * 60, "y" * 60])
    >>> [len(record) for record in records_of(piece, max_bytes=100)]
    [71, 71]
    """
    record = encode_frame(piece)
    if len(record) <= max_bytes:
        return [record]
    if len(piece.outputs) == 1:
        words = f"the output takes {len(record)} bytes, a record has at most {max_bytes}: give a smaller one"
        return [encode_frame(replace(piece, outputs=[None], failed=[FailedRow(piece.row0, "error", words)]))]
    half = len(piece.outputs) // 2
    middle = piece.row0 + half
    before = [failure for failure in piece.failed if failure.row < middle]
    after = [failure for failure in piece.failed if failure.row >= middle]
    first = replace(piece, outputs=piece.outputs[:half], failed=before)
    then = replace(piece, row0=middle, outputs=piece.outputs[half:], failed=after)
    return [*records_of(first, max_bytes), *records_of(then, max_bytes)]
