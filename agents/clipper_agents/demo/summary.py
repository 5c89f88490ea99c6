"""The result of a demo in a terminal: one table, the numbers of the run, and what they mean."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipper_agents.demo.plan import PHASE_TITLES, PHASES
from clipper_agents.demo.result import DemoResult


def print_summary(console: Console, result: DemoResult, failed: list[str]) -> None:
    """Print the errors by phase, the numbers of the run, and every check that failed."""
    console.print(errors_table(result))
    grid = Table.grid(padding=(0, 2))
    for name, value in numbers(result):
        grid.add_row(Text(name, style="dim"), value)
    console.print(grid)
    for line in statements(result):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for line in failed:
        console.print(Text(f"FAILED {line}", style="bold red"), soft_wrap=True)


def errors_table(result: DemoResult) -> Table:
    """Error of each policy and of each model alone, by phase."""
    table = Table(title="Errors in %, with 95 % intervals", title_justify="left", header_style="bold")
    table.add_column("who", no_wrap=True)
    for phase in PHASES:
        table.add_column(PHASE_TITLES[phase], justify="right", no_wrap=True)
    for policy, errors in result.policies.items():
        table.add_row(Text(policy, style="bold"), *_cells(errors))
    table.add_section()
    for ref, errors in result.single_models.items():
        table.add_row(f"{ref} broke" if ref == result.broken_model else ref, *_cells(errors))
    return table


def numbers(result: DemoResult) -> Iterator[tuple[str, str]]:
    """Name and value of each number of the run."""
    latency, cache = result.latency_ms, result.cache
    yield "queries", f"{result.queries:,} sent, {result.distinct_answered:,} answered, by {result.answered:,} answers"
    yield "latency", ", ".join(f"{name} {value:.0f} ms" for name, value in latency.items() if value is not None)
    yield "throughput", f"{result.throughput_per_s or 0:.0f} answers a second"
    yield "defaults", ", ".join(f"{count} {reason}" for reason, count in result.defaults.items()) or "none"
    yield "cache", f"{cache['hits']:,} of {cache['lookups']:,} rows were known"
    yield "feedback", ", ".join(f"{count:,} {what}" for what, count in result.feedback.items())
    yield "offsets", "all committed" if result.committed else f"not committed: {result.uncommitted}"
    verified = result.verified
    verdict = "equal" if verified["equal"] else "DIFFER FROM"
    yield (
        "verified",
        f"{verified['rows']:,} rows of {verified['feedbacks']:,} feedbacks {verdict} the serial fold of the logs",
    )
    yield "time", f"{result.seconds:.0f} s, of which {result.setup_seconds:.0f} s before the first query"


def statements(result: DemoResult) -> Iterator[str]:
    """The comparisons of policies with single models, a sentence each."""
    for phase, compared in result.ensemble_minus_best_model.items():
        low, high = compared["interval"]
        holds = "no worse within noise" if low <= 0 else "worse"
        yield (
            f"{PHASE_TITLES[phase]}: exp4 less the best single model ({compared['model']}): "
            f"{compared['difference']:+.2%}, 95 % interval {low:+.2%} to {high:+.2%} ({holds})"
        )
    ways = ", ".join(f"{policy} {way:.0%}" for policy, way in result.way_to_broken_model.items())
    yield f"failed: share of the way from the error of the best working model to that of the broken one: {ways}"


def _cells(errors: Mapping[str, Any]) -> list[str]:
    cells = []
    for phase in PHASES:
        low, high = errors[f"interval_{phase}"]
        cells.append(f"{100 * errors[f'error_{phase}']:.1f} ({100 * low:.1f}-{100 * high:.1f})")
    return cells
