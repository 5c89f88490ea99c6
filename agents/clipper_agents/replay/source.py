"""Decisions of one application from where they are: the logs in Kafka, or a file that they were exported to.

reading = read_decisions(KafkaLog(...), processes=2)
for chunk in reading:
    estimate(chunk.columns)
print(reading.counts)
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from clipper_agents.replay.logs import DecisionChunk, KafkaLog, read_spans, spans_of
from clipper_agents.replay.partition_reader import Progress
from clipper_agents.replay.span import PartitionSpan
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
    """Decisions that can be iterated over once, and what is known about them at the end."""

    counts: Counter[str]
    """What was read, and what became of it, by the names in `COUNTS`."""

    @property
    def offsets(self) -> Mapping[int, tuple[int, int]]:
        """Of each partition that has something: the first prediction, and one past the last."""
        ...

    def __iter__(self) -> Iterator[DecisionChunk]: ...


class FileReading:
    """One reading of a file, or a folder of files, of `replay export`.

    Args:
        path: The file or the folder.
        wanted: Names of the arrays to read; in the others nothing is known.
        inputs: Whether the queries' inputs are wanted, if they are there.

    Attributes:
        facts: What the file says about itself.
        counts: Those of the reading of the logs that wrote it.

    Raises:
        UnusableFile: it holds no decisions, or in a newer form.
    """

    def __init__(self, path: Path, wanted: Collection[str] = EVERYTHING, *, inputs: bool = False) -> None:
        self._path, self._wanted, self._inputs = path, wanted, inputs
        self.facts = read_facts(path)
        self.counts: Counter[str] = Counter(self.facts.counts)

    @property
    def offsets(self) -> Mapping[int, tuple[int, int]]:
        """As of `DecisionReading`."""
        return self.facts.offsets

    def __iter__(self) -> Iterator[DecisionChunk]:
        for columns, inputs in read_chunks_with_inputs(self._path, self._wanted, inputs=self._inputs):
            yield DecisionChunk(columns=columns, inputs=inputs)


class LogReading:
    """One reading of the logs: iterate over its chunks, then look at its counts.

    Args:
        log: The logs.
        spans: Of `spans_of`.
        processes: How many read at once, a partition each; 0: this one, without lean records.
        progress: Told how many records were read since it was told last.

    Attributes:
        counts: What was read so far, by the names in `docs/reference/replay-files.md`; whole at the end.
        records: How many there are to read.
    """

    def __init__(
        self, log: KafkaLog, spans: Sequence[PartitionSpan], processes: int = 0, progress: Progress = lambda _: None
    ) -> None:
        self._log, self._spans, self._processes, self._progress = log, spans, processes, progress
        self.counts: Counter[str] = Counter()
        self.records = sum(span.records for span in spans)

    @property
    def offsets(self) -> Mapping[int, tuple[int, int]]:
        """Of each partition that has something: the first prediction, and one past the last."""
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


def read_log(log: KafkaLog, processes: int = 0, progress: Progress = lambda _: None) -> LogReading:
    """A reading of the logs up to where they end now; arguments as of `LogReading`.

    Raises:
        KafkaUnreachable: no broker answers.
        EmptySpan: the span names a partition that is not there.
    """
    return LogReading(log, asyncio.run(spans_of(log)), processes, progress)


def read_decisions(
    source: KafkaLog | Path,
    processes: int = 0,
    progress: Progress = lambda _: None,
    wanted: Collection[str] = EVERYTHING,
) -> DecisionReading:
    """Decisions from the logs or from a file.

    Args:
        source: The logs of an application, or a file or folder of `replay export`.
        processes: How many read the logs at once; 0: this one. A file is read by this one.
        progress: Told how many records of the logs were read since it was told last.
        wanted: Names of the arrays that are needed; of a file, only these are read.

    Raises:
        KafkaUnreachable: no broker answers.
        EmptySpan: the span names a partition that is not there.
        UnusableFile: the file holds no decisions, or in a newer form.
    """
    return FileReading(source, wanted) if isinstance(source, Path) else read_log(source, processes, progress)
