"""The decisions of one application, from the logs in Kafka into a Parquet file.

logs in Kafka --> [LogTables] tables of each process in a temporary folder --> [DecisionJoin] --> file
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from clipper_agents.replay.decision_join import DecisionJoin
from clipper_agents.replay.log_reading import KafkaLog, Progress, read_tables, spans_of
from clipper_stream.evaluation.log.configuration import Configuration
from clipper_stream.evaluation.log.parquet import FileFacts, new_file
from clipper_stream.selection.registry import SETTLED, make_policy
from clipper_stream.selection.state import SelectionState
from clipper_topics.manifests import ApplicationManifest

COUNTS = (
    "decisions", "with_feedback", "feedback", "repeated", "duplicates", "invalid", "late", "orphans", "not_wanted",
    "forwarded", "markers", "undecodable", "no_audit",
)  # fmt: skip
"""What a reading counts; `docs/reference/replay-files.md` has the meanings."""
GROUP_ROWS, GROUP_ROWS_WITH_INPUTS = 65_536, 4_096
"""Decisions in a row group, which readers have in memory as a whole: an input may be an image."""


def export_log(
    log: KafkaLog,
    out: Path,
    processes: int,
    total: Callable[[int], None] = lambda _: None,
    progress: Progress = lambda _: None,
) -> FileFacts:
    """Write the decisions to a new file, which appears once all of them have been read, and return its metadata.

    The logs are read up to where they end now, by so many processes, and joined by so many threads. `total` is called
    with the number of records to read, `progress` with the number of those read since its last call.

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
        with DecisionJoin(
            Path(folder),
            application=log.application,
            loss_kind=log.loss_kind,
            horizon_ms=log.span.horizon_ms,
            partitions=log.catalogue.partitions,
            threads=processes,
        ) as join:
            counts.update(join.counts)
            named = {name: counts[name] for name in COUNTS}
            facts = replace(
                facts,
                offsets={span.partition: (span.first, span.predictions.end) for span in spans},
                counts=named | {"without_feedback": counts["decisions"] - counts["with_feedback"]},
                models=join.models,
                configs=dict(_configurations(log, join.revisions)),
                decisions=counts["decisions"],
            )
            join.write(path, facts.metadata, GROUP_ROWS_WITH_INPUTS if log.inputs else GROUP_ROWS)
    return facts


def _configurations(log: KafkaLog, revisions: Iterable[int]) -> Iterator[tuple[int, Configuration]]:
    """The configurations of revisions; one of which no change tells is that of the last that is known before it."""
    for revision in revisions:
        known = [number for number in log.manifests if number <= revision] or log.manifests
        if known:
            yield revision, configuration_of(log.manifests[max(known)], log.loss_kind)


def configuration_of(manifest: ApplicationManifest, loss: str) -> Configuration:
    """Return what a manifest says about decisions, which are scored by one loss, whatever it was then."""
    models, trials, served = tuple(manifest.models), dict[str, tuple[float, float]](), 0.0
    asked = models
    if models and manifest.policy.name in SETTLED and not manifest.audit_ratio:
        chosen = make_policy(manifest.policy.name, manifest.policy.parameters).prepare(SelectionState(), models)
        asked = tuple(model for one in chosen.decisions for model in one.models)
    for one in manifest.trials:
        trials[one.model] = (served, served + one.share) if one.stage == "canary" else (1.0 - one.share, 1.0)
        served += one.share if one.stage == "canary" else 0.0
    return Configuration(
        models=models,
        asked=asked,
        trials=trials,
        audit_ratio=manifest.audit_ratio,
        combiner=manifest.combiner,
        loss=loss,
        default_output=manifest.default_output,
        confidence_threshold=manifest.confidence_threshold,
        contexts_drawn=manifest.assign == "context",
    )
