"""A part of the logs written to a file of decisions."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from clipper_agents.replay.logs import KafkaLog
from clipper_agents.replay.partition_reader import Progress
from clipper_agents.replay.source import COUNTS, read_log
from clipper_stream.evaluation.log.parquet import FileFacts, read_facts, writing


def export_log(
    log: KafkaLog,
    out: Path,
    processes: int = 0,
    total: Callable[[int], None] = lambda _: None,
    progress: Progress = lambda _: None,
) -> FileFacts:
    """Write the decisions to a file (`.parquet`) or a folder; it is there when all of them were read.

    Args:
        log: The logs.
        out: Where to; nothing may be there.
        processes: How many read at once; 0: this one.
        total: Told how many records there are.
        progress: Told how many were read since it was told last.

    Returns:
        What the file says about itself.

    Raises:
        UnusableFile: something is there already.
        KafkaUnreachable: no broker answers, or it went away.
        EmptySpan: the span names a partition that is not there.
    """
    facts = FileFacts(
        application=log.application,
        loss_kind=log.loss_kind,
        since_ms=log.span.since_ms,
        until_ms=log.span.until_ms,
        horizon_s=log.span.horizon_s,
    )
    with writing(out, facts, inputs=log.inputs) as writer:
        reading = read_log(log, processes, progress)
        total(reading.records)
        writer.facts = replace(facts, offsets=reading.offsets)
        for chunk in reading:
            writer.write(chunk.columns, chunk.inputs)
        counts = {name: reading.counts[name] for name in COUNTS}
        counts["without_feedback"] = counts["decisions"] - counts["with_feedback"]
        writer.facts = replace(writer.facts, counts=counts)
    return read_facts(out)
