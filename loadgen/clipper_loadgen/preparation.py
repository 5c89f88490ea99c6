"""From a plan to bytes: all that can be done before the first query is sent."""

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipper_loadgen.arrivals import arrival_times
from clipper_loadgen.datasets import Dataset
from clipper_loadgen.delays import draw_delays
from clipper_loadgen.encoding import PIECES, Script, write_script
from clipper_loadgen.plan import LoadPlan
from clipper_loadgen.workloads import IntArray, Workload, draw_workload, repeated_from
from clipper_topics.feedback import Feedback

FeedbackRecord = tuple[int, bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run that only has to be carried out.

    Attributes:
        script: Every query.
        times_s: Intended send times from the start of the run; NaN in saturation mode, where there are none.
        first: Index of the first query after the warm-up.
        distinct_inputs: Number of different rows asked about.
        delays_s: Feedback delay of each query; None for a run without feedback.
        feedback_of: The feedback record (partition, key, value) of a query.
    """

    script: Script
    times_s: list[float]
    first: int
    distinct_inputs: int
    delays_s: list[float] | None
    feedback_of: Callable[[int], FeedbackRecord]


def intended_times(plan: LoadPlan) -> list[float]:
    """Intended send times of a plan's queries; one NaN a query in saturation mode."""
    if plan.mode == "saturation":
        return [math.nan] * plan.queries
    times: list[float] = arrival_times(
        plan.arrivals, plan.rate_per_s, plan.warmup_s + plan.duration_s, plan.seed
    ).tolist()
    return times


def draw_origin(plan: LoadPlan, count: int) -> IntArray:
    """For each query the query whose input it repeats, see `workloads.repeated_from`."""
    return repeated_from(count, plan.repeat_ratio, plan.recent, np.random.default_rng([plan.seed, 4]))


def prepare(plan: LoadPlan, dataset: Dataset, times_s: list[float], origin: IntArray, partitions: int) -> Prepared:
    """Draw the workload and encode it.

    Args:
        plan: The plan.
        dataset: Its rows.
        times_s: From `intended_times`.
        origin: From `draw_origin`.
        partitions: Number of partitions of the queries topic.
    """
    workload = draw_workload(
        dataset,
        origin,
        contexts=plan.contexts,
        zipf_exponent=plan.zipf_exponent,
        noise_ratio=plan.label_noise_ratio,
        seed=plan.seed,
    )
    script = write_script(
        workload,
        dataset,
        application=plan.application,
        encoding=plan.encoding,
        partitions=partitions,
        run=secrets.token_hex(4),
    )
    return Prepared(
        script=script,
        times_s=times_s,
        first=sum(time_s < plan.warmup_s for time_s in times_s),
        distinct_inputs=len(set(workload.rows)),
        delays_s=_delays(plan, len(times_s)),
        feedback_of=_feedback_of(plan, script, workload),
    )


def _delays(plan: LoadPlan, count: int) -> list[float] | None:
    if plan.feedback_delay_s is None:
        return None
    delays: list[float] = draw_delays(plan.feedback_distribution, plan.feedback_delay_s, count, plan.seed).tolist()
    return delays


def _feedback_of(plan: LoadPlan, script: Script, workload: Workload) -> Callable[[int], FeedbackRecord]:
    encode, truth = PIECES[plan.encoding].feedback, _truths(plan, workload)

    def record(query: int) -> FeedbackRecord:
        value = encode(Feedback(query_id=script.query_id(query), application=plan.application, **truth(query)))
        return script.partitions[query], script.keys[query], value

    return record


def _truths(plan: LoadPlan, workload: Workload) -> Callable[[int], dict[str, Any]]:
    """What is said about a query: its label, or a loss where no label is known."""
    labels = workload.labels
    if labels is not None:
        return lambda query: {"label": labels[query]}
    rng = np.random.default_rng([plan.seed, 8])
    losses = (rng.random(len(workload.rows)) < plan.label_noise_ratio).astype(float).tolist()
    return lambda query: {"loss": losses[query]}
