"""How the versions of all applications stand now: the logs are read to their end once, and folded."""

from collections.abc import Mapping

from clipper_agents.control.state import ControlState
from clipper_agents.rollout.comparison_spec import ComparisonSpec, comparison_specs
from clipper_agents.rollout.evidence import EvidenceFold, UnknownRevision
from clipper_agents.rollout.log_tailer import MergedLogTailer
from clipper_topics.catalogue import Catalogue
from clipper_topics.comparison import Comparison
from clipper_topics.connection import KafkaConnection

SLACK_MS = 5 * 60_000
"""Allowed difference between the clock of a change's author and the brokers' clock."""
HORIZON_S = 3600.0
MOST_QUERIES = 200_000


async def read_comparisons(
    connection: KafkaConnection, catalogue: Catalogue, control: ControlState
) -> tuple[Comparison, ...]:
    """The comparisons of the rollout controller, from the logs alone; `control` has to keep changes.

    Raises:
        KafkaUnreachable: no broker answers.
    """
    specs = comparison_specs(control, drift=False)
    if not specs:
        return ()
    fold = EvidenceFold(catalogue, control.current, HORIZON_S, MOST_QUERIES)
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
