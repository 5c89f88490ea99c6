"""The reference page of the metrics, from their specs: `python -m clipper_agents.observability.reference`."""

from collections.abc import Iterator

from clipper_agents.observability.specs import PROCESS_METRICS, SPECS, MetricSpec

PAGE = "docs/reference/metrics.md"

_HEAD = f"""# Metrics

<!-- Generated: python -m clipper_agents.observability.reference > {PAGE} -->

Routers, hosts, the steward and the gateway serve metrics in Prometheus' text format on
`http://127.0.0.1:PORT/metrics`. A worker's ready line has the port; `metrics_port` of `[router]`, `[host]`, `[steward]`
and `[gateway]` fixes it. No label contains a context or a query id. Routers with colocated models also have the metrics
of hosts.
"""
_TITLES = {"Routers": "router", "Hosts": "host", "Steward": "steward", "Gateway": "gateway", "All": "both"}


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
    print(reference(), end="")  # noqa: T201 - the page is the program's result
