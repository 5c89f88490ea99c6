"""Every query of the run, encoded before the first is sent, and the truth about it."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clipper_agents.demo.data import Digits, draw_traffic
from clipper_agents.demo.plan import POLICIES, DemoPlan, application_of
from clipper_loadgen import Dataset
from clipper_loadgen.schedule import draw_delays
from clipper_loadgen.script import JsonPieces, Script, write_script
from clipper_loadgen.workload import Workload, fresh_count, repeated_from
from clipper_topics import codec
from clipper_topics.feedback import Feedback

POLICY_NAMES = tuple(POLICIES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted:
    """What is sent, and what is true.

    Attributes:
        script: Every query; the applications alternate.
        labels: The true digit of each.
        distinct_inputs: Number of different pictures.
        due_s: When each is sent, in seconds from the start.
        feedback_delays_s: How long after its answer each truth is sent, in seconds.
    """

    script: Script
    labels: list[int]
    distinct_inputs: int
    due_s: list[float]
    feedback_delays_s: list[float]

    def feedback(self, query: int) -> tuple[int, bytes, bytes]:
        """The record of a query's truth: partition, key, value."""
        record = Feedback(query_id=self.script.query_id(query), label=self.labels[query])
        return self.script.partitions[query], self.script.keys[query], codec.feedback.encode(record)


def policy_of(query: int) -> str:
    """Which policy's application a query asks.

    >>> [policy_of(query) for query in range(3)]
    ['exp3', 'exp4', 'exp3']
    """
    return POLICY_NAMES[query % len(POLICY_NAMES)]


def write_scripted(plan: DemoPlan, digits: Digits, partitions: int) -> Scripted:
    """Draw and encode the run's queries.

    Args:
        plan: The run.
        digits: The data.
        partitions: Of the queries topic.
    """
    origin = repeated_from(plan.queries, plan.repeat_ratio, plan.recent, np.random.default_rng([plan.seed, 15]))
    fresh = fresh_count(origin)
    pictures = draw_traffic(digits, fresh, plan.seed)
    rows = _rows(origin.tolist())
    script = write_script(
        Workload(rows=rows, contexts=None, labels=None),
        Dataset(pictures.rows),
        application=application_of(POLICY_NAMES[0]),
        encoding="json",
        partitions=partitions,
        run=secrets.token_hex(4),
    )
    labels = pictures.labels.tolist()
    return Scripted(
        script=_alternating(script),
        labels=[labels[row] for row in rows],
        distinct_inputs=fresh,
        due_s=(np.arange(plan.queries) / plan.rate_per_s).tolist(),
        feedback_delays_s=draw_delays("exponential", plan.feedback_delay_s, plan.queries, plan.seed).tolist(),
    )


def _rows(origin: Sequence[int]) -> list[int]:
    """A row a query: the next fresh one, or that of the query that it repeats."""
    rows: list[int] = []
    upcoming = 0
    for query, source in enumerate(origin):
        fresh = source == query
        rows.append(upcoming if fresh else rows[source])
        upcoming += fresh
    return rows


def _alternating(script: Script) -> Script:
    """The same queries, asked of each application in turn."""
    middle: Callable[[str, None], bytes] = JsonPieces().middle
    middles = [middle(application_of(policy), None) for policy in POLICY_NAMES]
    return replace(script, middles=[middles[query % len(middles)] for query in range(len(script))])
