"""Decisions of one application from where they are: the logs in Kafka, or a file that they were exported to.

reading = read_decisions(KafkaLog(...), processes=2)
for chunk in reading:
    estimate(chunk.columns)
print(reading.counts)
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from clipper_agents.replay.logs import DecisionChunk, KafkaLog, read_spans, spans_of
from clipper_agents.replay.partition_reader import Progress
from clipper_agents.replay.workers import read_in_processes
from clipper_stream.evaluation.log.parquet import EVERYTHING, read_chunks_with_inputs, read_facts

COUNTS = {
    "decisions": "decisions of the application in the span",
    "with_feedback": "decisions with a feedback that counts",
    "feedback": "feedback records that could be read, about whatever",
    "repeated": "predictions about a query that one was read about before",
    "duplicates": "feedback about a decision after the one that counts",
    "invalid": "feedback about a decision that cannot be compared with it, or names another context or application",
    "late": "feedback behind the horizon of its decision",
    "orphans": "feedback about a query of which no prediction was read",
    "not_wanted": "feedback about a decision of another application, or before the span",
    "forwarded": "feedback that a router sent on to the partition that its id names, where it is read",
    "markers": "records that restore a state, and are no feedback",
    "undecodable": "records that cannot be read, and feedback that says nothing or too much",
    "no_audit": "decisions that say an audit follows, of which none was read",
}
"""What a reading counts, with its meaning; `docs/reference/replay-files.md` has the same."""


class DecisionReading(Protocol):
    """Decisions to iterate over once; the counts are complete at the end."""

    counts: Counter[str]
    """Counts of records by outcome, with the names in `COUNTS`."""

    @property
    def offsets(self) -> Mapping[int, tuple[int, int]]:
        """First prediction and one past the last, of each partition with decisions."""
        ...

    def __iter__(self) -> Iterator[DecisionChunk]: ...


class FileReading:
    """Reads a file, or a folder of files, of `replay export`.

    Args:
        path: The file or the folder.
        wanted: Names of the arrays to read; the others are filled with unknown values.
        inputs: Whether to read the queries' inputs, if the file has them.

    Attributes:
        facts: Metadata of the file.
        counts: Counts of the export that wrote the file.

    Raises:
        UnusableFile: it holds no decisions, or was written in a newer format.
    """

    def __init__(self, path: Path, wanted: Collection[str] = EVERYTHING, *, inputs: bool = False) -> None:
        self._path, self._wanted, self._inputs = path, wanted, inputs
        self.facts = read_facts(path)
        self.counts: Counter[str] = Counter(self.facts.counts)

    @property
    def offsets(self) -> Mapping[int, tuple[int, int]]:
        """First prediction and one past the last, of each partition with decisions."""
        return self.facts.offsets

    def __iter__(self) -> Iterator[DecisionChunk]:
        for columns, inputs in read_chunks_with_inputs(self._path, self._wanted, inputs=self._inputs):
            yield DecisionChunk(columns=columns, inputs=inputs)


class LogReading:
    """Reads the logs up to where they end now: iterate over the chunks, then look at the counts.

    Args:
        log: The logs.
        processes: Number of reading processes, a partition each; 0: this one, without lean records.
        progress: Called with the number of records read since the last call.

    Attributes:
        counts: Counts of records by outcome so far, with the names in `docs/reference/replay-files.md`.
        records: Number of records to read.

    Raises:
        KafkaUnreachable: no broker answers.
        EmptySpan: the span names a partition that does not exist.
    """

    def __init__(self, log: KafkaLog, processes: int = 0, progress: Progress = lambda _: None) -> None:
        self._log, self._processes, self._progress = log, processes, progress
        self._spans = asyncio.run(spans_of(log))
        self.counts: Counter[str] = Counter()
        self.records = sum(span.records for span in self._spans)

    @property
    def offsets(self) -> Mapping[int, tuple[int, int]]:
        """First prediction and one past the last, of each partition with decisions."""
        return {span.partition: (span.first, span.predictions[1]) for span in self._spans}

    def __iter__(self) -> Iterator[DecisionChunk]:
        if self._processes:
            return read_in_processes(self._log, self._spans, self._processes, self.counts, self._progress)
        return self._here()

    def _here(self) -> Iterator[DecisionChunk]:
        with asyncio.Runner() as runner:
            chunks = read_spans(self._log, self._spans, self.counts, self._progress)

            async def following() -> DecisionChunk | None:
                return await anext(chunks, None)

            try:
                while (chunk := runner.run(following())) is not None:
                    yield chunk
            finally:
                runner.run(chunks.aclose())  # type: ignore[attr-defined]  # an asynchronous generator has it


def read_decisions(
    source: KafkaLog | Path,
    processes: int = 0,
    progress: Progress = lambda _: None,
    wanted: Collection[str] = EVERYTHING,
) -> DecisionReading:
    """Read decisions from the logs or from a file.

    Args:
        source: The logs of an application, or a file or folder of `replay export`.
        processes: Number of processes that read the logs; 0: this one. A file is read by this one.
        progress: Called with the number of log records read since the last call.
        wanted: Names of the arrays to read from a file.

    Raises:
        KafkaUnreachable: no broker answers.
        EmptySpan: the span names a partition that does not exist.
        UnusableFile: the file holds no decisions, or was written in a newer format.
    """
    return FileReading(source, wanted) if isinstance(source, Path) else LogReading(source, processes, progress)
