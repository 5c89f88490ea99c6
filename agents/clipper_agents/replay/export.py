"""The decisions of one application, from the logs in Kafka into a Parquet file.

logs in Kafka --> [LogTables] tables of each process in a temporary folder --> [DecisionJoin] --> file
"""

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from clipper_agents.replay.decision_join import DecisionJoin, JoinRules
from clipper_agents.replay.log_reading import KafkaLog, Progress, read_tables, spans_of
from clipper_stream.evaluation.log.parquet import FileFacts, new_file

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
GROUP_ROWS, GROUP_ROWS_WITH_INPUTS = 65_536, 4_096
"""Decisions in a row group, which readers have in memory as a whole: an input may be an image."""


def export_log(
    log: KafkaLog,
    out: Path,
    processes: int,
    total: Callable[[int], None] = lambda _: None,
    progress: Progress = lambda _: None,
) -> FileFacts:
    """Write the decisions to a file, which appears once all of them have been read.

    Args:
        log: The logs; they are read up to where they end now.
        out: The file; it must not exist.
        processes: Number of reading processes, and of threads that join.
        total: Called with the number of records to read.
        progress: Called with the number of records read since the last call.

    Returns:
        The metadata of the file.

    Raises:
        UnusableFile: the file exists.
        KafkaUnreachable: no broker answers.
        ReadingBroken: a reading process was killed.
    """
    facts = FileFacts(
        application=log.application,
        loss_kind=log.loss_kind,
        since_ms=log.span.since_ms,
        until_ms=log.span.until_ms,
        horizon_s=log.span.horizon_s,
    )
    with new_file(out) as path, tempfile.TemporaryDirectory(prefix="clipper-replay-") as folder:
        spans = asyncio.run(spans_of(log))
        total(sum(span.records for span in spans))
        counts = read_tables(log, spans, Path(folder), processes, progress)
        rules = JoinRules(
            application=log.application,
            loss_kind=log.loss_kind,
            horizon_ms=log.span.horizon_ms,
            partitions=log.catalogue.partitions,
        )
        with DecisionJoin(Path(folder), rules, processes) as join:
            counts.update(join.counts)
            named = {name: counts[name] for name in COUNTS}
            facts = replace(
                facts,
                offsets={span.partition: (span.first, span.predictions.end) for span in spans},
                counts=named | {"without_feedback": counts["decisions"] - counts["with_feedback"]},
                models=join.models,
                decisions=counts["decisions"],
            )
            join.write(path, facts.metadata, GROUP_ROWS_WITH_INPUTS if log.inputs else GROUP_ROWS)
    return facts
