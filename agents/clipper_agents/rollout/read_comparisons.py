"""How the versions of all applications stand now: the logs are read to their end once, and folded."""

from collections.abc import Mapping

from clipper_agents.control.state import read_control
from clipper_agents.rollout.comparison_spec import ComparisonSpec, comparison_specs
from clipper_agents.rollout.evidence import EvidenceFold, UnknownRevision
from clipper_agents.rollout.log_tailer import MergedLogTailer
from clipper_agents.rollout.trial_evidence import Comparison
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

__all__ = ["SLACK_MS", "Comparison", "begins_ms", "read_comparisons"]

SLACK_MS = 5 * 60_000
"""Allowed difference between the clock of a change's author and the brokers' clock."""
HORIZON_S = 3600.0
MOST_QUERIES = 200_000


async def read_comparisons(
    connection: KafkaConnection,
    catalogue: Catalogue,
    *,
    horizon_s: float = HORIZON_S,
    most_queries: int = MOST_QUERIES,
) -> tuple[Comparison, ...]:
    """The comparisons of the rollout controller, from the logs alone; empty when nothing is compared.

    Args:
        connection: How to reach the brokers.
        catalogue: The topics.
        horizon_s: How long after its prediction a feedback still counts, in seconds.
        most_queries: How many are kept at most, between a prediction and its feedback.

    Raises:
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no control topic.
    """
    control = await read_control(connection, catalogue)
    specs = comparison_specs(control, drift=False)
    if not specs:
        return ()
    fold = EvidenceFold(catalogue, control.current, horizon_s, most_queries)
    fold.follow(specs)
    logs = MergedLogTailer(connection, catalogue)
    await logs.start(begins_ms(specs))
    try:
        async for records in logs.to_the_end():
            for at_ms, record in records:
                try:
                    fold.take(record, at_ms)
                except UnknownRevision:
                    continue  # decided under a revision that was published after we had read the control topic
    finally:
        await logs.stop()
    return tuple(fold.comparisons())


def begins_ms(specs: Mapping[str, ComparisonSpec]) -> int:
    """Time from which the logs have to be read, milliseconds since the epoch."""
    return min(one.begins_ms for one in specs.values()) - SLACK_MS
