"""Several partitions at once: each process reads some of them, and sends their chunks through a pipe.

Rules of this file:
- A pipe holds less than a chunk, so that who reads ahead waits for who uses it.
- The processes run nothing else: records are lean there, and what nothing can refer back to needs no collector.
- A process that ends before it said so is an error.
"""

import asyncio
import gc
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from clipper_agents.replay.logs import DecisionChunk, KafkaLog, read_spans
from clipper_agents.replay.partition_reader import Progress
from clipper_agents.replay.span import PartitionSpan
from clipper_stream.errors import ClipperError


class ReadingBroken(ClipperError):
    """A reading process ended early, so the reading is incomplete."""


def read_in_processes(
    log: KafkaLog, spans: Sequence[PartitionSpan], processes: int, counts: Counter[str], progress: Progress
) -> Iterator[DecisionChunk]:
    """Read the chunks of all partitions, those of each in log order; arguments as of `LogReading`.

    Raises:
        KafkaUnreachable: no broker answers any more.
        ReadingBroken: a reading process was killed.
    """
    context = get_context("spawn")
    pipes: list[Connection] = []
    children = []
    try:
        for share in shared_out(spans, processes):
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(target=_read, args=(log, share, theirs), daemon=True)
            child.start()
            theirs.close()
            pipes.append(ours)
            children.append(child)
        yield from _received(pipes, counts, progress)
    finally:
        for pipe in pipes:
            pipe.close()
        for child in children:
            child.terminate()
            child.join()


def shared_out(spans: Sequence[PartitionSpan], processes: int) -> list[list[PartitionSpan]]:
    """Divide the partitions among at most as many processes, about as many records each."""
    shares: list[list[PartitionSpan]] = [[] for _ in range(min(processes, len(spans)))]
    for span in sorted(spans, key=lambda one: -one.records):
        min(shares, key=lambda share: sum(one.records for one in share)).append(span)
    return shares


def _received(pipes: Sequence[Connection], counts: Counter[str], progress: Progress) -> Iterator[DecisionChunk]:
    open_ones = list(pipes)
    while open_ones:
        for pipe in wait(open_ones):
            assert isinstance(pipe, Connection)
            try:
                said: Any = pipe.recv()
            except EOFError as error:
                raise ReadingBroken("a process that was reading the logs has ended: run the command again") from error
            if isinstance(said, DecisionChunk):
                yield said
            elif isinstance(said, int):
                progress(said)
            elif isinstance(said, ClipperError):
                raise said
            else:
                counts.update(said)
                open_ones.remove(pipe)


def _read(log: KafkaLog, spans: Sequence[PartitionSpan], pipe: Connection) -> None:
    """Read spans in a process of its own, and send the chunks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it ends it
    gc.disable()
    try:
        pipe.send(asyncio.run(_send(log, spans, pipe)))
    except ClipperError as error:
        pipe.send(error)
    except BrokenPipeError:  # nobody wants the rest
        return


async def _send(log: KafkaLog, spans: Sequence[PartitionSpan], pipe: Connection) -> Counter[str]:
    counts: Counter[str] = Counter()
    async for chunk in read_spans(log, spans, counts, pipe.send):
        pipe.send(chunk)
    return counts
