"""Every metric: its name, what it counts and its labels. Nothing else in the project spells a metric's name.

Rules of this file:
- No label holds a context, a query id or anything else that an application can invent without bound.
- A label whose values users name (applications, models) has at most `MOST_NAMES` values in a process.
- Units are in the names, as Prometheus has them: seconds, bytes, rows. Counters end in `_total`.
"""

from dataclasses import dataclass
from typing import Literal

BOUNDED = ("application", "model")
"""Labels whose values users name."""
MOST_NAMES = 1_000
"""Values of such a label in one process. Of an application a router has some sixty series, so a scrape stays below a
second of a core; what Prometheus is made for is a tenth of that a target."""
OTHERS = "_others"
"""Value of the label of all others together; no application or model can be named so."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric family; buckets are upper bounds in the metric's unit.

    Its role says which processes have it: a `host` metric also a router that runs colocated models, `both` all but the
    supervisor.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    text: str
    role: Literal["router", "host", "steward", "gateway", "supervisor", "both"]
    buckets: tuple[float, ...] = ()


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

_MODEL = ("model", "version")
_COMPARED = ("application", "model", "stage")

SPECS = (
    MetricSpec("clipper_queries_total", "counter", ("application",), "Queries read, redeliveries included.", "router"),
    MetricSpec(
        "clipper_predictions_total",
        "counter",
        ("application", "outcome", "reason"),
        "Predictions sent; outcome is `model` or `default`, reason says why a default (empty for `model`).",
        "router",
    ),
    MetricSpec(
        "clipper_prediction_latency_seconds",
        "histogram",
        ("application", "outcome"),
        "From the query's timestamp to the decided answer.",
        "router",
        _LATENCY_S,
    ),
    MetricSpec(
        "clipper_objective_missed_total",
        "counter",
        ("application",),
        "Predictions that missed the latency objective: defaults for want of time (`late`, `arrived_late`, "
        "`overloaded`), and outputs of models that were decided after it.",
        "router",
    ),
    MetricSpec(
        "clipper_objective_seconds",
        "gauge",
        ("application",),
        "The latency objective; absent for an application without one.",
        "router",
    ),
    MetricSpec(
        "clipper_stage_latency_seconds",
        "histogram",
        ("stage",),
        "A query's way. In routers, a query: `wait` for the decision, `models` until the answer, `record` until that "
        "is stored; a chunk of outputs: `return` from a host, `combine` to answers. In hosts, a chunk of requests: "
        "`request`, from a router's send until it is read; a batch: `queue`, until its first row is in it, `batch`, "
        "until its outputs are sent, of that `model` in the model. Routers with colocated models have these three too.",
        "both",
        _BATCH_LATENCY_S,
    ),
    MetricSpec("clipper_cache_lookups_total", "counter", ("model",), "Rows looked up in the cache.", "router"),
    MetricSpec("clipper_cache_hits_total", "counter", ("model",), "Rows answered from the cache.", "router"),
    MetricSpec("clipper_cache_bytes", "gauge", (), "Bytes in the caches of all partitions of the process.", "router"),
    MetricSpec("clipper_coalesced_total", "counter", (), "Rows that waited for an identical row in flight.", "router"),
    MetricSpec(
        "clipper_feedback_total",
        "counter",
        ("outcome",),
        "Feedback read; outcome: `applied`, `restored`, `duplicate`, `orphan`, `forwarded`, `invalid` or `unlearned`.",
        "router",
    ),
    MetricSpec(
        "clipper_selection_weight",
        "gauge",
        ("application", "model"),
        "Share of trust in a candidate (without context), in [0, 1]; the model is `name:version`.",
        "router",
    ),
    MetricSpec(
        "clipper_ready_hosts",
        "gauge",
        ("model",),
        "Hosts of a declared model that say they are ready; the model is `name:version`.",
        "router",
    ),
    MetricSpec(
        "clipper_manifests_refused_total",
        "counter",
        (),
        "Records of the control topic that were refused; the log says which and why.",
        "router",
    ),
    MetricSpec(
        "clipper_clock_skew_seconds",
        "gauge",
        (),
        "How far the process's clock is ahead of the broker's, as far as that is sure; below 0: behind it.",
        "router",
    ),
    MetricSpec("clipper_in_flight", "gauge", (), "Queries read and not yet answered.", "router"),
    MetricSpec("clipper_deferred_queries", "gauge", (), "Queries that wait in the log for room or time.", "router"),
    MetricSpec(
        "clipper_consumer_lag",
        "gauge",
        ("topic", "partition"),
        "Records in the partition that the process has not read yet.",
        "both",
    ),
    MetricSpec(
        "clipper_rebalances_total",
        "counter",
        (),
        "Rebalances of the group that this process has seen, its own start among them.",
        "router",
    ),
    MetricSpec("clipper_broker_reachable", "gauge", (), "1 while a broker answers, 0 after 5 s without one.", "both"),
    MetricSpec(
        "clipper_dead_letters_total", "counter", ("topic", "reason"), "Records sent to the dead letters.", "both"
    ),
    MetricSpec(
        "clipper_disk_used_bytes",
        "gauge",
        ("folder",),
        "Bytes that the process's data folder takes on the disk.",
        "both",
    ),
    MetricSpec(
        "clipper_disk_free_bytes", "gauge", ("folder",), "Bytes that the process may still write there.", "both"
    ),
    MetricSpec("clipper_batch_rows", "histogram", _MODEL, "Rows of a batch that was run.", "host", _ROWS),
    MetricSpec(
        "clipper_batch_wait_seconds",
        "histogram",
        _MODEL,
        "Time that the first row of a batch waited in the host.",
        "host",
        _BATCH_LATENCY_S,
    ),
    MetricSpec("clipper_batch_limit_rows", "gauge", _MODEL, "Largest batch that the limit allows now.", "host"),
    MetricSpec(
        "clipper_batch_latency_seconds", "histogram", _MODEL, "Time that a batch ran.", "host", _BATCH_LATENCY_S
    ),
    MetricSpec(
        "clipper_rows_total",
        "counter",
        (*_MODEL, "outcome"),
        "Rows finished; outcome is `ok`, `late` (dropped, the deadline had passed) or `error`.",
        "host",
    ),
    MetricSpec(
        "clipper_failed_batches_total",
        "counter",
        _MODEL,
        "Batches in which the model raised or gave another number of outputs than rows, also if a retry answered them.",
        "host",
    ),
    MetricSpec("clipper_queued_rows", "gauge", _MODEL, "Rows that wait for a batch.", "host"),
    MetricSpec(
        "clipper_comparison_feedbacks", "gauge", _COMPARED, "Feedbacks about the version in this comparison.", "steward"
    ),
    MetricSpec(
        "clipper_comparison_difference",
        "gauge",
        _COMPARED,
        "Mean loss of a trial minus that of the application's answers, as feedback told them, in [-1, 1].",
        "steward",
    ),
    MetricSpec(
        "clipper_comparison_difference_lower",
        "gauge",
        _COMPARED,
        "Lower end of the interval of the difference over all queries, which holds at all times at once.",
        "steward",
    ),
    MetricSpec(
        "clipper_comparison_difference_upper", "gauge", _COMPARED, "Upper end of the difference's interval.", "steward"
    ),
    MetricSpec("clipper_comparison_loss", "gauge", _COMPARED, "Mean loss of the version itself, in [0, 1].", "steward"),
    MetricSpec("clipper_comparison_loss_lower", "gauge", _COMPARED, "Lower end of the loss's interval.", "steward"),
    MetricSpec("clipper_comparison_loss_upper", "gauge", _COMPARED, "Upper end of the loss's interval.", "steward"),
    MetricSpec(
        "clipper_decisions_total",
        "counter",
        ("application", "command", "outcome"),
        "Changes that a rule asked for: `step`, `promote`, `abort`, `retire`; outcome is `made`, `stale` or `refused`.",
        "steward",
    ),
    MetricSpec(
        "clipper_comparison_dropped_total",
        "counter",
        ("reason",),
        "Queries and records left out: `full` (memory), `no_audit`, `invalid` (feedback), `undecodable`.",
        "steward",
    ),
    MetricSpec(
        "clipper_drifts_total",
        "counter",
        ("application", "model", "direction"),
        "Detected changes of a version's loss, written to the control topic; direction is `up` (worse) or `down`.",
        "steward",
    ),
    MetricSpec(
        "clipper_drift_refused_total",
        "counter",
        ("application",),
        "Applications whose declared detector cannot be used; the steward's log says why.",
        "steward",
    ),
    MetricSpec(
        "clipper_comparison_queries", "gauge", (), "Queries remembered for feedback that may still come.", "steward"
    ),
    MetricSpec(
        "clipper_gateway_requests_total",
        "counter",
        ("route", "status", "application"),
        "Answered requests by HTTP status, also of gRPC; the application is empty unless it is registered.",
        "gateway",
    ),
    MetricSpec(
        "clipper_gateway_request_seconds",
        "histogram",
        ("route",),
        "From a request's arrival to its answer.",
        "gateway",
        _LATENCY_S,
    ),
    MetricSpec("clipper_gateway_in_flight", "gauge", (), "Calls that wait for an answer.", "gateway"),
    MetricSpec(
        "clipper_restarts_total",
        "counter",
        ("role",),
        "Restarts of processes that ended by themselves; role is `router`, `host`, `steward` or `gateway`.",
        "supervisor",
    ),
    MetricSpec("clipper_children_wanted", "gauge", ("role",), "Processes that should run.", "supervisor"),
    MetricSpec("clipper_children_ready", "gauge", ("role",), "Of those, the ones that serve.", "supervisor"),
)
"""In the order of the reference page."""

PROCESS_METRICS = {
    "process_resident_memory_bytes": "Resident memory.",
    "process_virtual_memory_bytes": "Virtual memory.",
    "process_cpu_seconds_total": "User and system CPU time.",
    "process_open_fds": "Open file descriptors.",
    "process_max_fds": "Most file descriptors that the process may open.",
    "process_start_time_seconds": "When the process started, seconds since the epoch.",
}
"""Of every process, from prometheus-client (Linux only)."""
