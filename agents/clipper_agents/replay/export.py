"""A part of the logs written to a file of decisions."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from clipper_agents.replay.logs import KafkaLog
from clipper_agents.replay.partition_reader import Progress
from clipper_agents.replay.source import COUNTS, LogReading
from clipper_stream.evaluation.log.parquet import FileFacts, read_facts, writing


def export_log(
    log: KafkaLog,
    out: Path,
    processes: int = 0,
    total: Callable[[int], None] = lambda _: None,
    progress: Progress = lambda _: None,
) -> FileFacts:
    """Write the decisions to a file (`.parquet`) or a folder, which appears once all of them have been read.

    Args:
        log: The logs.
        out: The file or folder; it must not exist.
        processes: Number of reading processes; 0: this one.
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
