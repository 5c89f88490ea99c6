"""The result of a demo: the record of the run, what `--json` writes, and the checks that failed."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import msgspec

from clipper_agents.broker import KAFKA_VERSION
from clipper_agents.demo.data import FloatArray
from clipper_agents.demo.error_rates import ENSEMBLE, DemoScores, error_of
from clipper_agents.demo.models import TrainedModel
from clipper_agents.demo.plan import BEFORE, PHASES, RESTORED, DemoPlan
from clipper_agents.demo.samples import DemoSample
from clipper_agents.replay.verdicts import Verification
from clipper_loadgen import LoadReport
from clipper_stream.intervals import wilson

PERCENTILES = ("p50", "p90", "p99")
DISTRIBUTIONS = ("clipper-stream", "faust-streaming", "aiokafka", "numpy", "scikit-learn", "skops")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRecord:
    """The record of a run, from which the result, the figures and the page are made.

    Attributes:
        plan: The run.
        models: The models that were served.
        load: What became of the queries.
        scores: The errors.
        samples: Metrics over time; the last one is of when all feedback was counted.
        sent_s: When each query was sent, in seconds from the start; NaN where it was not.
        latencies_s: Of each query, infinite without an answer.
    """

    plan: DemoPlan
    models: Sequence[TrainedModel]
    load: LoadReport
    scores: DemoScores
    samples: Sequence[DemoSample]
    sent_s: FloatArray
    latencies_s: FloatArray


class DemoResult(msgspec.Struct, kw_only=True):
    """What `--json` writes; errors are shares in [0, 1], intervals hold 95 %."""

    queries: int
    """Queries sent."""
    answered: int
    """Answers read, second ones included."""
    distinct_answered: int
    """Queries that have an answer."""
    distinct_inputs: int
    """Different pictures among the queries."""
    defaults: dict[str, int]
    """Default answers by reason."""
    feedback: dict[str, int]
    """`sent` by the demo; as the router counted them `applied`, `duplicates`, `unlearned` and so on."""
    latency_ms: dict[str, float | None]
    """Percentiles, from the time at which a query was sent until its answer was read."""
    throughput_per_s: float | None
    """Answers a second between the 5 % and the 95 % mark."""
    cache: dict[str, int]
    """`lookups` of rows and `hits`."""
    batch: dict[str, dict[str, float]]
    """By model: `mean` and `max` rows of a batch (the max to the next power of two), and `limit_final`."""
    broken_model: str
    """The model that failed: the one with the least validation error."""
    policies: dict[str, dict[str, Any]]
    """By policy: for each phase `error_`, `queries_` and `interval_`."""
    single_models: dict[str, dict[str, Any]]
    """The same by model, from the ensemble's log."""
    ensemble_minus_best_model: dict[str, dict[str, Any]]
    """By healthy phase: the best single `model`, the `difference` of errors, and its paired `interval`."""
    way_to_broken_model: dict[str, float]
    """By policy: its error during the failure, 0 as good as the best working model, 1 as bad as the broken one."""
    committed: bool
    """Whether every input topic's committed offsets equal its ends."""
    uncommitted: dict[str, int]
    """Records that are not committed, by topic."""
    verified: dict[str, Any]
    """The comparison with the logs folded again: whether every row is `equal`, number of `rows` and `feedbacks`,
    `seconds`."""
    seconds: float
    """From the start of the command to the last commit."""
    setup_seconds: float
    """Of these, until the first query."""
    versions: dict[str, str]
    """Of Python, Kafka and the libraries, and the machine."""


def demo_result(
    record: DemoRecord,
    *,
    uncommitted: dict[str, int],
    verification: Verification,
    seconds: float,
    setup_seconds: float,
    versions: dict[str, str],
) -> DemoResult:
    """The result.

    Args:
        record: What the run has recorded.
        uncommitted: Records that are not committed, by topic.
        verification: The comparison of the selection table with the logs.
        seconds: From the start of the command to the last commit.
        setup_seconds: Of these, until the first query.
        versions: From `used_versions`.
    """
    load, scores, last = record.load, record.scores, record.samples[-1]
    feedback = {"duplicates" if name == "duplicate" else name: int(count) for name, count in last.feedback.items()}
    compared = {phase: scores.versus_best(ENSEMBLE, phase) for phase in (BEFORE, RESTORED)}
    return DemoResult(
        queries=record.plan.queries,
        answered=load.answered + load.duplicates,
        distinct_answered=load.answered,
        distinct_inputs=load.distinct_inputs,
        defaults=load.defaults,
        feedback={"sent": load.feedback_sent, "applied": 0, "duplicates": 0, **feedback},
        latency_ms={name: load.latency[f"{name}_ms"] for name in PERCENTILES},
        throughput_per_s=load.throughput_per_s,
        cache={"lookups": int(last.lookups), "hits": int(last.hits)},
        batch={
            ref: {"mean": round(batches.mean, 2), "max": batches.largest, "limit_final": batches.limit}
            for ref, batches in ((model.ref, last.batches(model.ref)) for model in record.models)
        },
        broken_model=scores.broken,
        policies={policy: _errors(scores, wrong) for policy, wrong in scores.policies.items()},
        single_models={ref: _errors(scores, wrong) for ref, wrong in scores.models.items()},
        ensemble_minus_best_model={
            phase: {"model": ref, "difference": round(difference, 5), "interval": _rounded(interval)}
            for phase, (ref, difference, interval) in compared.items()
        },
        way_to_broken_model={policy: round(scores.way_to_broken(policy), 4) for policy in scores.policies},
        committed=not uncommitted,
        uncommitted=uncommitted,
        verified={
            "equal": verification.equal,
            "rows": verification.rows,
            "feedbacks": verification.feedbacks,
            "seconds": verification.seconds,
        },
        seconds=round(seconds, 2),
        setup_seconds=round(setup_seconds, 2),
        versions=versions,
    )


def used_versions(*, embedded: bool) -> dict[str, str]:
    """Versions of Python, Kafka and the libraries, and the machine; that of the embedded Kafka alone is known."""
    return {
        **{name: metadata.version(name) for name in DISTRIBUTIONS},
        "python": platform.python_version(),
        "kafka": KAFKA_VERSION if embedded else "as given",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
    }


def problems(result: DemoResult) -> list[str]:
    """The checks that failed, a line each; without any the demo ends with exit code 0."""
    found = []
    if not result.distinct_answered == result.answered == result.queries:
        found.append(
            f"answers: {result.distinct_answered:,} of {result.queries:,} queries were answered, "
            f"with {result.answered:,} answers: each must have exactly one"
        )
    sent, counted = result.feedback["sent"], result.feedback["applied"] + result.feedback.get("unlearned", 0)
    if counted != sent:
        found.append(f"feedback: {sent:,} were sent, {counted:,} were counted: {result.feedback}")
    if not result.committed:
        found.append(f"offsets: not committed at the end: {result.uncommitted}")
    if not result.verified["equal"]:
        found.append("verification: the selection table is not what the logs lead to: clipper-stream replay verify")
    return found


def _errors(scores: DemoScores, wrong: FloatArray) -> dict[str, Any]:
    """`error_`, `queries_` and `interval_` of each phase."""
    errors: dict[str, Any] = {}
    for phase in PHASES:
        within = scores.within(phase, wrong)
        errors[f"error_{phase}"] = round(error_of(within), 5)
        errors[f"queries_{phase}"] = len(within)
        errors[f"interval_{phase}"] = _rounded(wilson(float(within.sum()), len(within)))
    return errors


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(bound, 5) for bound in interval]
