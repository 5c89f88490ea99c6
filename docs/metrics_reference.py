"""Write the reference page of the metrics: `python docs/metrics_reference.py > docs/reference/metrics.md`."""

from pathlib import Path

from clipper_agents.observability.specs import MOST_NAMES, OTHERS, PROCESS_METRICS, SPECS, MetricSpec

PAGE = Path(__file__).with_name("reference") / "metrics.md"

_HEAD = f"""# Metrics

<!-- Generated: python docs/metrics_reference.py > docs/reference/metrics.md -->

Every process serves metrics on `http://127.0.0.1:PORT/metrics`, beside its
[probes](../how-to/three-machines.md#probes). A worker's ready line has the port, and the log of a supervisor;
`metrics_port` of `[router]`, `[host]`, `[steward]`, `[gateway]` and `[supervisor]` fixes it. The format is Prometheus'
text, or OpenMetrics for who asks for it, with the trace id of the newest sampled query as the exemplar of each bucket
of a latency. Routers with colocated models have the metrics of hosts too.

No label contains a context or a query id, and names that a caller invents are one series (`unknown`, in the gateway
empty). Of applications, and of models, the first {MOST_NAMES:,} that a process is asked for have series of their own;
all others are counted under the label `{OTHERS}`, and have no gauges. Series end when an application or a version is
withdrawn.
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
    return "\n".join(parts) + "\n"


def _row(spec: MetricSpec) -> str:
    labels = ", ".join(f"`{label}`" for label in spec.labels)
    return f"- `{spec.name}` ({spec.kind}{labels and f' by {labels}'}): {spec.text}"


if __name__ == "__main__":
    print(reference(), end="")
