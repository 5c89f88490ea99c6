"""Every metric: its name, what it counts and its labels. Dashboards, alerts and the reference page follow this table.

Rules of this file:
- No label holds a context, a query id or anything else that an application can invent without bound.
- A label whose values users name (applications, models) has at most `MOST_NAMES` values in a process.
- Units are in the names, as Prometheus has them: seconds, bytes, rows. Counters end in `_total`; histograms have
  buckets; all others are gauges.
"""

from dataclasses import dataclass
from typing import Literal

Role = Literal["router", "host", "steward", "gateway", "supervisor", "both"]
"""Which processes have a metric: those of hosts also routers with colocated models, `both` all but supervisors."""
BOUNDED = ("application", "model")
"""Labels whose values users name."""
MOST_NAMES = 1_000
"""Values of such a label in one process. Of an application a router has some sixty series, so a scrape stays below a
second of a core; what Prometheus is made for is a tenth of that a target."""
OTHERS = "_others"
"""Value of the label of all others together; no application or model can be named so."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric family; buckets are upper bounds in the metric's unit."""

    role: Role
    name: str
    labels: tuple[str, ...]
    text: str
    buckets: tuple[float, ...] = ()

    @property
    def kind(self) -> Literal["counter", "gauge", "histogram"]:
        return "histogram" if self.buckets else "counter" if self.name.endswith("_total") else "gauge"


def _spaced(steps: tuple[float, ...], decades: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(step * decade, 9) for decade in decades for step in steps)


# Three to six buckets a decade where objectives usually are (10 ms to 1 s), so that a p99 is off by at most a third.
_LATENCY_S = (
    *_spaced((1.0, 2.0, 5.0), (0.001,)),
    *_spaced((1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (0.01, 0.1)),
    *_spaced((1.0, 2.0, 5.0, 10.0), (1.0,)),
)
# A batch of a cheap model takes tenths of a millisecond.
_BATCH_LATENCY_S = (*_spaced((1.0, 2.0, 5.0), (0.0001,)), *_LATENCY_S)
_ROWS = tuple(float(2**exponent) for exponent in range(15))

_BUCKETS: dict[str, tuple[float, ...]] = {
    "clipper_prediction_latency_seconds": _LATENCY_S,
    "clipper_batch_rows": _ROWS,
    "clipper_batch_wait_seconds": _BATCH_LATENCY_S,
    "clipper_batch_latency_seconds": _BATCH_LATENCY_S,
    "clipper_gateway_request_seconds": _LATENCY_S,
    "clipper_stage_latency_seconds": _BATCH_LATENCY_S,
}
"""Of the histograms; all else in the table is a counter or a gauge."""
_TABLE: dict[Role, tuple[tuple[str, str, str], ...]] = {
    "router": (
        ("clipper_queries_total", "application", "Queries read, redeliveries included."),
        (
            "clipper_predictions_total",
            "application outcome reason",
            "Predictions sent; outcome is `model` or `default`, reason says why a default (empty for `model`).",
        ),
        (
            "clipper_prediction_latency_seconds",
            "application outcome",
            "From the query's timestamp to the decided answer.",
        ),
        (
            "clipper_objective_missed_total",
            "application",
            (
                "Predictions that missed the latency objective: defaults for want of time (`late`, `arrived_late`, "
                "`overloaded`), and outputs of models that were decided after it."
            ),
        ),
        ("clipper_objective_seconds", "application", "The latency objective; absent for an application without one."),
        ("clipper_cache_lookups_total", "model", "Rows looked up in the cache."),
        ("clipper_cache_hits_total", "model", "Rows answered from the cache."),
        ("clipper_cache_bytes", "", "Bytes in the caches of all partitions of the process."),
        ("clipper_coalesced_total", "", "Rows that waited for an identical row in flight."),
        (
            "clipper_feedback_total",
            "outcome",
            "Feedback read, `applied`, `restored`, `duplicate`, `orphan`, `forwarded`, `invalid` or `unlearned`.",
        ),
        (
            "clipper_selection_weight",
            "application model",
            "Share of trust in a candidate (without context), in [0, 1]; the model is `name:version`.",
        ),
        (
            "clipper_ready_hosts",
            "model",
            "Hosts of a declared model that say they are ready; the model is `name:version`.",
        ),
        (
            "clipper_manifests_refused_total",
            "",
            "Records of the control topic that were refused; the log says which and why.",
        ),
        (
            "clipper_clock_skew_seconds",
            "",
            "How far the process's clock is ahead of the broker's, as far as that is sure; below 0: behind it.",
        ),
        ("clipper_in_flight", "", "Queries read and not yet answered."),
        ("clipper_deferred_queries", "", "Queries that wait in the log for room or time."),
        (
            "clipper_rebalances_total",
            "",
            "Rebalances of the group that this process has seen, its own start among them.",
        ),
    ),
    "host": (
        ("clipper_batch_rows", "model version", "Rows of a batch that was run."),
        ("clipper_batch_wait_seconds", "model version", "Time that the first row of a batch waited in the host."),
        ("clipper_batch_limit_rows", "model version", "Largest batch that the limit allows now."),
        ("clipper_batch_latency_seconds", "model version", "Time that a batch ran."),
        (
            "clipper_rows_total",
            "model version outcome",
            "Rows finished; outcome is `ok`, `late` (dropped, the deadline had passed) or `error`.",
        ),
        (
            "clipper_failed_batches_total",
            "model version",
            "Batches in which the model raised or gave another number of outputs than rows, retried or not.",
        ),
        ("clipper_queued_rows", "model version", "Rows that wait for a batch."),
    ),
    "steward": (
        ("clipper_comparison_feedbacks", "application model stage", "Feedbacks about the version in this comparison."),
        (
            "clipper_comparison_difference",
            "application model stage",
            "Mean loss of a trial minus that of the application's answers, as feedback told them, in [-1, 1].",
        ),
        (
            "clipper_comparison_difference_lower",
            "application model stage",
            "Lower end of the interval of the difference over all queries, which holds at all times at once.",
        ),
        ("clipper_comparison_difference_upper", "application model stage", "Upper end of the difference's interval."),
        ("clipper_comparison_loss", "application model stage", "Mean loss of the version itself, in [0, 1]."),
        ("clipper_comparison_loss_lower", "application model stage", "Lower end of the loss's interval."),
        ("clipper_comparison_loss_upper", "application model stage", "Upper end of the loss's interval."),
        (
            "clipper_decisions_total",
            "application command outcome",
            "Changes by rules (`step`, `promote`, `abort`, `retire`, `scale`): `made`, `stale` or `refused`.",
        ),
        (
            "clipper_comparison_dropped_total",
            "reason",
            "Queries and records left out: `full` (memory), `no_audit`, `invalid` (feedback), `undecodable`.",
        ),
        (
            "clipper_drifts_total",
            "application model direction",
            "Detected changes of a version's loss, written to the control topic; direction is `up` (worse) or `down`.",
        ),
        (
            "clipper_drift_refused_total",
            "application",
            "Applications whose declared detector cannot be used; the steward's log says why.",
        ),
        ("clipper_comparison_queries", "", "Queries remembered for feedback that may still come."),
    ),
    "gateway": (
        (
            "clipper_gateway_requests_total",
            "route status application",
            "Answered requests by HTTP status, also of gRPC; the application is empty unless it is registered.",
        ),
        ("clipper_gateway_request_seconds", "route", "From a request's arrival to its answer."),
        ("clipper_gateway_in_flight", "", "Calls that wait for an answer."),
    ),
    "supervisor": (
        (
            "clipper_restarts_total",
            "role",
            "Restarts of processes that ended by themselves; role is `router`, `host`, `steward` or `gateway`.",
        ),
        ("clipper_children_wanted", "role", "Processes that should run."),
        ("clipper_children_ready", "role", "Of those, the ones that serve."),
    ),
    "both": (
        (
            "clipper_stage_latency_seconds",
            "stage",
            (
                "A query's way. In routers, a query: `wait` for the decision, `models` until the answer, `record` "
                "until that is stored; a chunk of outputs: `return` from a host, `combine` to answers. In hosts, a "
                "chunk of requests: `request`, from a router's send until it is read; a batch: `queue`, until its "
                "first row is in it, `batch`, until its outputs are sent, of that `model` in the model. Routers with "
                "colocated models have these too."
            ),
        ),
        ("clipper_consumer_lag", "topic partition", "Records in the partition that the process has not read yet."),
        ("clipper_broker_reachable", "", "1 while a broker answers, 0 after 5 s without one."),
        ("clipper_dead_letters_total", "topic reason", "Records sent to the dead letters."),
        ("clipper_spans_lost_total", "", "Spans of sampled queries that no collector took in time."),
        ("clipper_disk_used_bytes", "folder", "Bytes that the process's data folder takes on the disk."),
        ("clipper_disk_free_bytes", "folder", "Bytes that the process may still write there."),
    ),
}
"""By role, in the order of the reference page: name, labels and text."""
SPECS = tuple(
    MetricSpec(role, name, tuple(labels.split()), text, _BUCKETS.get(name, ()))
    for role, rows in _TABLE.items()
    for name, labels, text in rows
)

PROCESS_METRICS = {
    "process_resident_memory_bytes": "Resident memory.",
    "process_virtual_memory_bytes": "Virtual memory.",
    "process_cpu_seconds_total": "User and system CPU time.",
    "process_open_fds": "Open file descriptors.",
    "process_max_fds": "Most file descriptors that the process may open.",
    "process_start_time_seconds": "When the process started, seconds since the epoch.",
}
"""Of every process, from prometheus-client (Linux only)."""
