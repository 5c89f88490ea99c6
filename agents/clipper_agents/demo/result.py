"""The result of a demo: the errors by phase, what `--json` writes, and the checks that failed."""

import os
import platform
from importlib import metadata
from typing import Any

import msgspec
import numpy as np

from clipper_agents.broker import KAFKA_VERSION
from clipper_agents.demo.plan import BEFORE, FAILED, PHASES, POLICIES, RESTORED, DemoPlan
from clipper_agents.demo.run_recorder import UNANSWERED, DemoRecorder
from clipper_agents.replay.verdicts import Verification
from clipper_loadgen import LoadReport
from clipper_loadgen.draws import FloatArray
from clipper_stream.intervals import mean_difference, wilson

PERCENTILES = ("p50", "p90", "p99")
DISTRIBUTIONS = ("clipper-stream", "faust-streaming", "aiokafka", "numpy", "scikit-learn", "skops")
ENSEMBLE = "exp4"
"""Asks all models for every query: its log is what each of them alone would have answered."""


def score(recorder: DemoRecorder) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """The errors of a run: by query 1 for a wrong answer, 0 for a right one, NaN where the query does not count.

    Returns:
        By policy, over the queries to its application, where no answer is wrong, as a default is. And by model, over
        the queries to the ensemble's application that the model answered in time.
    """
    truth = np.asarray(recorder.run.script.labels, np.int8)
    application = np.arange(len(truth)) % len(POLICIES)
    asked = {policy: application == number for number, policy in enumerate(POLICIES)}
    policies = {policy: np.where(mine, recorder.digits != truth, np.nan) for policy, mine in asked.items()}
    models = {
        ref: np.where(asked[ENSEMBLE] & (digits != UNANSWERED), digits != truth, np.nan)
        for ref, digits in recorder.model_digits.items()
    }
    return policies, models


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
    recorder: DemoRecorder,
    load: LoadReport,
    *,
    uncommitted: dict[str, int],
    verification: Verification,
    seconds: float,
    setup_seconds: float,
    embedded: bool,
) -> DemoResult:
    """The result; of the samples the last one is of when all feedback was counted."""
    plan, last, (policies, models) = recorder.plan, recorder.samples[-1], score(recorder)
    feedback = {"duplicates" if name == "duplicate" else name: count for name, count in last.feedback.items()}
    by_policy = {policy: _errors(plan, wrong) for policy, wrong in policies.items()}
    by_model = {ref: _errors(plan, wrong) for ref, wrong in models.items()}
    best = {phase: _least_error(by_model, phase) for phase in PHASES}
    least, most = (by_model[ref][f"error_{FAILED}"] for ref in (best[FAILED], recorder.broken))
    way = {policy: errors[f"error_{FAILED}"] - least for policy, errors in by_policy.items()}
    return DemoResult(
        queries=plan.queries,
        answered=load.answered + load.duplicates,
        distinct_answered=load.answered,
        distinct_inputs=load.distinct_inputs,
        defaults=load.defaults,
        feedback={"sent": load.feedback_sent, "applied": 0, "duplicates": 0, **feedback},
        latency_ms={name: load.latency[f"{name}_ms"] for name in PERCENTILES},
        throughput_per_s=load.throughput_per_s,
        cache=last.cache,
        batch={model.ref: last.batches(model.ref) for model in recorder.models},
        broken_model=recorder.broken,
        policies=by_policy,
        single_models=by_model,
        ensemble_minus_best_model={
            phase: _compared(plan, phase, policies[ENSEMBLE] - models[best[phase]], best[phase])
            for phase in (BEFORE, RESTORED)
        },
        way_to_broken_model={
            name: round(above / (most - least), 4) if most > least else 0.0 for name, above in way.items()
        },
        committed=not uncommitted,
        uncommitted=uncommitted,
        verified={name: getattr(verification, name) for name in ("equal", "rows", "feedbacks", "seconds")},
        seconds=round(seconds, 2),
        setup_seconds=round(setup_seconds, 2),
        versions=_versions(embedded=embedded),
    )


def _versions(*, embedded: bool) -> dict[str, str]:
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


def _errors(plan: DemoPlan, wrong: FloatArray) -> dict[str, Any]:
    """`error_`, `queries_` and `interval_` of each phase; without queries the error is 0."""
    errors: dict[str, Any] = {}
    for phase in PHASES:
        within = _within(plan, phase, wrong)
        errors[f"error_{phase}"] = round(float(within.sum()) / max(1, len(within)), 5)
        errors[f"queries_{phase}"] = len(within)
        errors[f"interval_{phase}"] = _rounded(wilson(float(within.sum()), len(within)))
    return errors


def _least_error(by_model: dict[str, dict[str, Any]], phase: str) -> str:
    """The model with the least error in a phase, known only afterwards."""
    return min(by_model, key=lambda ref: float(by_model[ref][f"error_{phase}"]))


def _compared(plan: DemoPlan, phase: str, differences: FloatArray, model: str) -> dict[str, Any]:
    difference, interval = mean_difference(_within(plan, phase, differences))
    return {"model": model, "difference": round(difference, 5), "interval": _rounded(interval)}


def _within(plan: DemoPlan, phase: str, wrong: FloatArray) -> FloatArray:
    """The queries of a phase that count."""
    number = PHASES.index(phase)
    found = wrong[slice(*plan.edges[number : number + 2])]
    return found[~np.isnan(found)]


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(bound, 5) for bound in interval]
