"""How the versions of all applications stand now, for whoever asks once: the logs are read to their end and folded."""

from collections.abc import Mapping

from clipper_agents.control.state import read_control
from clipper_agents.rollout.comparison_spec import Control, Watched
from clipper_agents.rollout.evidence import Ahead, Fold
from clipper_agents.rollout.log_tailer import LogsInOrder
from clipper_agents.rollout.trial_evidence import Comparison
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

__all__ = ["SLACK_MS", "Comparison", "begins_ms", "read_comparisons"]

SLACK_MS = 5 * 60_000
"""Between the clock of whoever made a change and the brokers'; what is read too much is told by its revision."""
HORIZON_S = 3600.0
MOST_QUERIES = 200_000


async def read_comparisons(
    connection: KafkaConnection,
    catalogue: Catalogue,
    *,
    horizon_s: float = HORIZON_S,
    most_queries: int = MOST_QUERIES,
) -> tuple[Comparison, ...]:
    """What the steward knows, found in the logs; empty when nothing is on trial and nobody keeps the best.

    Args:
        connection: How to reach the brokers.
        catalogue: The topics.
        horizon_s: How long after its prediction a feedback still counts, in seconds.
        most_queries: Kept at most, between a prediction and its feedback.

    Raises:
        KafkaUnreachable: no broker answers.
        TopicMismatch: there is no control topic.
    """
    control = Control(await read_control(connection, catalogue))
    watched = control.watched(drift=False)
    if not watched:
        return ()
    fold = Fold(catalogue, control.revision, horizon_s, most_queries)
    fold.follow(watched)
    logs = LogsInOrder(connection, catalogue)
    await logs.start(begins_ms(watched))
    try:
        async for records in logs.to_the_end():
            for at_ms, record in records:
                try:
                    fold.take(record, at_ms)
                except Ahead:
                    continue  # decided under a revision that was published after we had read the control topic
    finally:
        await logs.stop()
    return tuple(fold.comparisons())


def begins_ms(watched: Mapping[str, Watched]) -> int:
    """Where to begin to read for everything that is watched, milliseconds since the epoch."""
    return min(one.begins_ms for one in watched.values()) - SLACK_MS
