"""The router's Faust agents: take a chunk, hand it to whoever knows, acknowledge."""

import time
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

from faust.types import TP

from clipper_agents.router.prediction_log import answers
from clipper_agents.router.query_records import Record, decode_queries
from clipper_agents.streaming.dead_letters import send_dead_letters
from clipper_agents.streaming.stream import Chunk
from clipper_stream.query import DecodedQuery, OutputPiece
from clipper_stream.query.planner import CONVERTED_TOGETHER
from clipper_topics.codec import UndecodableRecord
from clipper_topics.frames import OutputFrame, UnknownFrame, decode_output

if TYPE_CHECKING:
    from clipper_agents.router.app import RouterProcess

QUERIES_A_CHUNK = 1000
DECODED_TOGETHER = CONVERTED_TOGETHER
FRAMES_A_CHUNK = 256
ROWS_GATHERED_TOGETHER = 256
"""What an output completes is encoded at once, while it is in the processor's cache."""
WAY_BACK_CHUNKS = 10
FEEDBACK_A_CHUNK = 500
"""Rows of one feedback step go out as one produce batch: at a few hundred bytes a row this many fit with room."""


Undecodable: TypeAlias = list[tuple[Record, UndecodableRecord]]
"""Records that hold no query, each with the reason."""


def add_agents(process: "RouterProcess") -> None:
    """Register the agents `route`, `gather` and `learn` with the process's Faust app."""
    app, catalogue = process.app, process.settings.catalogue
    topics = {"route": catalogue.queries, "gather": catalogue.outputs, "learn": catalogue.feedback}
    for work in (route, gather, learn):
        name = work.__name__
        app.agent(app.raw_topic(topics[name]), name=name)(partial(work, process))


async def route(process: "RouterProcess", stream: Any) -> None:
    """Decide about queries."""
    async for chunk in stream.chunks(QUERIES_A_CHUNK):
        generation = stream.generation
        await process.room.wait()
        await receive_queries(process, by_partition(chunk), generation)


async def gather(process: "RouterProcess", stream: Any) -> None:
    """Take the outputs that hosts send to this process."""
    async for chunk in stream.chunks(FRAMES_A_CHUNK):
        generation = stream.generation
        frames = await decode_outputs(process, [record for _, records in chunk for record in records])
        gather_frames(process, [frame for frame in frames if frame.router == process.identity])
        note_way_back(process, chunk)
        for tp, records in chunk:
            stream.ack(tp, [record.offset for record in records], generation)


async def learn(process: "RouterProcess", stream: Any) -> None:
    """Apply feedback."""
    async for chunk in stream.chunks(FEEDBACK_A_CHUNK):
        generation = stream.generation
        for tp, records in by_partition(chunk).items():
            if await process.learner.learn(tp.partition, records, generation):
                stream.ack(tp, [record.offset for record in records], generation)


def note_way_back(process: "RouterProcess", chunk: Chunk) -> None:
    """How long outputs take from the host's clock to here, smoothed over about ten chunks."""
    took_s = max(0.0, time.time() - max(records[0].timestamp for _, records in chunk) / 1000)
    process.router.return_s += (took_s - process.router.return_s) / WAY_BACK_CHUNKS


def by_partition(chunk: Chunk) -> dict[TP, list[Record]]:
    """The records of each partition together, in log order.

    Under load a chunk holds hundreds of short lists: a step of learning, which waits for the broker, or a look into the
    index of decisions for each of them would fall behind for ever.
    """
    merged: dict[TP, list[Record]] = {}
    for tp, records in chunk:
        merged.setdefault(tp, []).extend(records)
    return merged


async def receive_queries(process: "RouterProcess", chunk: dict[TP, list[Record]], generation: int) -> None:
    """Answer again what was answered before, refuse what cannot be read, decide about the rest together.

    The records of a generation that has ended are left alone: whoever has their partition now reads them again.
    """
    if generation != process.generation():
        return
    undecodable: Undecodable = []
    now_s = time.time()
    with process.stage("decide", sum(map(len, chunk.values()))):
        effects = process.router.receive(fresh_queries(process, chunk, generation, now_s, undecodable), now_s)
    process.carrier.carry_out(effects)
    process.watch_audits()
    process.watch_room()
    for partition, group in groupby(undecodable, key=lambda refused: refused[0].partition):
        await refuse_queries(process, partition, list(group), generation)


def fresh_queries(
    process: "RouterProcess", chunk: dict[TP, list[Record]], generation: int, now_s: float, undecodable: Undecodable
) -> Iterator[DecodedQuery]:
    """The queries that no decision is known of, decoded a few at a time; the others are answered again."""
    for tp, records in chunk.items():
        for start in range(0, len(records), DECODED_TOGETHER):
            some = records[start : start + DECODED_TOGETHER]
            with process.stage("decode", len(some)):
                decoded = decode_queries(some, generation, now_s)
            undecodable += decoded.undecodable
            with process.stage("known", len(decoded.queries)):
                logged = process.decisions.of(tp.partition).find([query.query_id for query in decoded.queries])
            for query, before in zip(decoded.queries, logged, strict=True):
                if before is None or process.router.is_in_flight(query):
                    yield query
                elif not answers(before, query):
                    yield query._replace(shares_id=True)
                else:
                    process.recorder.repeat(query, before)


async def refuse_queries(process: "RouterProcess", partition: int, undecodable: Undecodable, generation: int) -> None:
    """What is no query goes to the dead letters, and is done."""
    catalogue = process.settings.catalogue
    await send_dead_letters(process.app.outbox, catalogue.dead_letters, undecodable)
    process.metrics.count_dead_letters(catalogue.queries, "undecodable", len(undecodable))
    process.acknowledge(partition, [record.offset for record, _ in undecodable], generation)


async def decode_outputs(process: "RouterProcess", records: list[Record]) -> list[OutputFrame]:
    """The frames of the records; what is none goes to the dead letters."""
    frames, refused = [], []
    for record in records:
        try:
            frames.append(decode_output(record.value or b""))
        except UnknownFrame as error:
            refused.append((record, error))
    if refused:
        catalogue = process.settings.catalogue
        await send_dead_letters(process.app.outbox, catalogue.dead_letters, refused)
        process.metrics.count_dead_letters(catalogue.outputs, "undecodable", len(refused))
    return frames


def gather_frames(process: "RouterProcess", frames: list[OutputFrame]) -> None:
    """Outputs for this process have arrived, from hosts or from colocated models."""
    pieces: list[OutputPiece] = []
    rows = 0
    for frame in frames:
        process.sender.came_back(frame.frame, len(frame.outputs))
        failed = {row.row: (row.reason, row.explanation) for row in frame.failed}
        for start in range(0, len(frame.outputs), ROWS_GATHERED_TOGETHER):
            outputs = frame.outputs[start : start + ROWS_GATHERED_TOGETHER]
            pieces.append(OutputPiece(frame.frame, frame.row0 + start, outputs, failed))
            rows += len(outputs)
            if rows >= ROWS_GATHERED_TOGETHER:
                gather_pieces(process, pieces, rows)
                pieces, rows = [], 0
    gather_pieces(process, pieces, rows)


def gather_pieces(process: "RouterProcess", pieces: list[OutputPiece], rows: int) -> None:
    """Fill what waits for these rows, and answer what is complete."""
    if pieces:
        with process.stage("gather", rows):
            effects = process.router.gather(pieces, time.time())
        process.carrier.carry_out(effects)
