"""The decisions of one application, from the logs in Kafka into a file.

reading = LogReading(KafkaLog(...), processes=2)
for chunk in reading:
    estimate(chunk.columns)
print(reading.counts)
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from clipper_agents.replay.logs import DecisionChunk, KafkaLog, spans_of
from clipper_agents.replay.partition_reader import Progress
from clipper_agents.replay.workers import read_in_processes
from clipper_stream.evaluation.log.parquet import FileFacts, read_facts, writing

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


class LogReading:
    """Reads the logs up to where they end now: iterate over the chunks, then look at the counts.

    Args:
        log: The logs.
        processes: Number of reading processes, a partition each.
        progress: Called with the number of records read since the last call.

    Attributes:
        counts: Counts of records by outcome so far, with the names in `docs/reference/replay-files.md`.
        records: Number of records to read.

    Raises:
        KafkaUnreachable: no broker answers.
    """

    def __init__(self, log: KafkaLog, processes: int, progress: Progress = lambda _: None) -> None:
        self._log, self._processes, self._progress = log, processes, progress
        self._spans = asyncio.run(spans_of(log))
        self.counts: Counter[str] = Counter()
        self.records = sum(span.records for span in self._spans)

    @property
    def offsets(self) -> Mapping[int, tuple[int, int]]:
        """First prediction and one past the last, of each partition with decisions."""
        return {span.partition: (span.first, span.predictions[1]) for span in self._spans}

    def __iter__(self) -> Iterator[DecisionChunk]:
        return read_in_processes(self._log, self._spans, self._processes, self.counts, self._progress)


def export_log(
    log: KafkaLog,
    out: Path,
    processes: int,
    total: Callable[[int], None] = lambda _: None,
    progress: Progress = lambda _: None,
) -> FileFacts:
    """Write the decisions to a file (`.parquet`) or a folder, which appears once all of them have been read.

    Args:
        log: The logs.
        out: The file or folder; it must not exist.
        processes: Number of reading processes, a partition each.
        total: Called with the number of records to read.
        progress: Called with the number of records read since the last call.

    Returns:
        The metadata of the file.

    Raises:
        UnusableFile: the file or folder exists.
        KafkaUnreachable: no broker answers.
    """
    facts = FileFacts(
        application=log.application,
        loss_kind=log.loss_kind,
        since_ms=log.span.since_ms,
        until_ms=log.span.until_ms,
        horizon_s=log.span.horizon_s,
    )
    with writing(out, facts, inputs=log.inputs) as writer:
        reading = LogReading(log, processes, progress)
        total(reading.records)
        writer.facts = replace(facts, offsets=reading.offsets)
        for chunk in reading:
            writer.write(chunk.columns, chunk.inputs)
        counts = {name: reading.counts[name] for name in COUNTS}
        counts["without_feedback"] = counts["decisions"] - counts["with_feedback"]
        writer.facts = replace(writer.facts, counts=counts)
    return read_facts(out)
