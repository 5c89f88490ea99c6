"""Write the reference page of the metrics: `python docs/metrics_reference.py > docs/reference/metrics.md`."""

from collections.abc import Iterator
from pathlib import Path

from clipper_agents.observability.specs import MOST_NAMES, OTHERS, PROCESS_METRICS, SPECS, MetricSpec

PAGE = Path(__file__).with_name("reference") / "metrics.md"

_HEAD = f"""# Metrics

<!-- Generated: python docs/metrics_reference.py > docs/reference/metrics.md -->

Routers, hosts, the steward, the gateway, and the `up` or `worker hosts` that keeps them running serve metrics on
`http://127.0.0.1:PORT/metrics`, beside their [probes](../how-to/scale-out.md#probes). A worker's ready line has the
port, and the log of a supervisor; `metrics_port` of `[router]`, `[host]`, `[steward]`, `[gateway]` and `[supervisor]`
fixes it. The format is Prometheus' text, or OpenMetrics for who asks for it, which has exemplars: for each bucket of a
latency the trace id of the newest sampled query in it. Routers with colocated models also have the metrics of hosts.

## How many series

No label contains a context or a query id, and names that a caller invents are one series (`unknown`, in the gateway
empty). Of applications, and of models, {MOST_NAMES:,} have series of their own in a process: those that were first to
be asked. What is counted for all others has the label `{OTHERS}`, so that sums are right, and they have no gauges. The
series of an application or a version end when it is withdrawn, and the next one has room.
"""
_TITLES = {
    "Routers": "router",
    "Hosts": "host",
    "Steward": "steward",
    "Gateway": "gateway",
    "Supervisors": "supervisor",
    "All but supervisors": "both",
}


def reference() -> str:
    """The page."""
    parts = [_HEAD]
    for title, role in _TITLES.items():
        parts.append(f"## {title}\n")
        parts.extend(_row(spec) for spec in SPECS if spec.role == role)
        parts.append("")
    parts.append(f"## Process (Linux)\n\n{', '.join(f'`{name}`' for name in PROCESS_METRICS)}")
    parts.extend(["", "## Buckets\n", *_buckets()])
    return "\n".join(parts) + "\n"


def _row(spec: MetricSpec) -> str:
    labels = ", ".join(f"`{label}`" for label in spec.labels)
    return f"- `{spec.name}` ({spec.kind}{labels and f' by {labels}'}): {spec.text}"


def _buckets() -> Iterator[str]:
    for spec in SPECS:
        if spec.buckets:
            yield f"- `{spec.name}`: {', '.join(f'{bound:g}' for bound in spec.buckets)}"


if __name__ == "__main__":
    print(reference(), end="")
