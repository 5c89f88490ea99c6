"""The result as JSON has it, and what went wrong."""

from collections.abc import Mapping
from typing import Any

import msgspec

from clipper_agents.demo.answers import Answers
from clipper_agents.demo.intervals import Interval
from clipper_agents.demo.phases import BEFORE, PHASES, RESTORED
from clipper_agents.demo.plan import DemoPlan
from clipper_agents.demo.scoring import ENSEMBLE, Outcomes, versus_best, way_to_broken
from clipper_agents.demo.watching import Sample
from clipper_agents.replay.verdicts import Verification
from clipper_loadgen.report import percentile_ms, steady_rate_per_s

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0}


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
    """By policy: its error during the failure, 0 as good as the best whole model, 1 as bad as the broken one."""
    committed: bool
    """Whether every input topic's committed offsets equal its ends."""
    uncommitted: dict[str, int]
    """Records that are not committed, by topic."""
    verified: dict[str, Any]
    """The logs folded again: whether every row is `equal`, how many `rows` of how many `feedbacks`, in `seconds`."""
    seconds: float
    """From the start of the command to the last commit."""
    setup_seconds: float
    """Of these, until the first query."""
    versions: dict[str, str]
    """Of Python, Kafka and the libraries, and the machine."""


def policy_errors(outcomes: Outcomes, plan: DemoPlan) -> dict[str, Any]:
    """`error_`, `queries_` and `interval_` of each phase."""
    errors: dict[str, Any] = {}
    for phase in PHASES:
        part = outcomes.within(phase, plan)
        errors[f"error_{phase}"] = round(part.error, 5)
        errors[f"queries_{phase}"] = len(part.wrong)
        errors[f"interval_{phase}"] = _rounded(part.interval)
    return errors


def traffic_fields(answers: Answers, plan: DemoPlan) -> dict[str, Any]:
    """The fields that the run's ledger knows."""
    ledger = answers.ledger
    latencies_s = ledger.latencies_s()
    return {
        "queries": plan.queries,
        "answered": ledger.answered_count + ledger.duplicates(),
        "distinct_answered": ledger.answered_count,
        "defaults": ledger.reasons(),
        "latency_ms": {name: percentile_ms(latencies_s, share) for name, share in PERCENTILES.items()},
        "throughput_per_s": steady_rate_per_s(ledger.answer_times_s()),
    }


def metric_fields(last: Sample, feedback_sent: int) -> dict[str, Any]:
    """The fields that the processes' metrics know.

    Args:
        last: The last sample.
        feedback_sent: Feedback records that the demo sent.
    """
    feedback = {"applied": 0, "duplicates": 0} | {_outcome(name): int(count) for name, count in last.feedback.items()}
    return {
        "feedback": {"sent": feedback_sent, **feedback},
        "cache": {"lookups": int(last.lookups), "hits": int(last.hits)},
        "batch": {
            ref: {"mean": round(batches.mean, 2), "max": batches.largest, "limit_final": batches.limit}
            for ref, batches in last.batches.items()
        },
    }


def learning_fields(
    policies: Mapping[str, Outcomes], models: Mapping[str, Outcomes], broken: str, plan: DemoPlan
) -> dict[str, Any]:
    """The fields about errors."""
    compared = {phase: versus_best(policies[ENSEMBLE], models, phase, plan) for phase in (BEFORE, RESTORED)}
    return {
        "broken_model": broken,
        "policies": {policy: policy_errors(outcomes, plan) for policy, outcomes in policies.items()},
        "single_models": {ref: policy_errors(outcomes, plan) for ref, outcomes in models.items()},
        "ensemble_minus_best_model": {
            phase: {"model": ref, "difference": round(difference, 5), "interval": _rounded(interval)}
            for phase, (ref, difference, interval) in compared.items()
        },
        "way_to_broken_model": {
            policy: round(way_to_broken(outcomes, models, broken, plan), 4) for policy, outcomes in policies.items()
        },
    }


def verified_fields(found: Verification) -> dict[str, Any]:
    """What folding the logs again has said."""
    return {"equal": found.equal, "rows": found.rows, "feedbacks": found.feedbacks, "seconds": found.seconds}


def problems(result: DemoResult) -> list[str]:
    """What must hold and does not, a line each; with none the demo ends with exit code 0."""
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


def _outcome(name: str) -> str:
    return "duplicates" if name == "duplicate" else name


def _rounded(interval: Interval) -> list[float]:
    return [round(bound, 5) for bound in interval]
