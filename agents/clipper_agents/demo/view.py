"""What a demo shows meanwhile: a live view in a terminal, a line every few seconds elsewhere."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clipper_agents.demo.models import TrainedModel
from clipper_agents.demo.plan import FAILED, PHASE_TITLES, RESTORED, DemoPlan
from clipper_agents.demo.samples import DemoSample

REFRESH_PER_S = 4
LINE_EVERY_S = 5.0
BAR_CELLS = 18
PHASE_STYLE = {"before": "green", "failed": "bold red", "restored": "cyan"}


class DemoView(Protocol):
    """Told what happens."""

    def stage(self, text: str) -> None:
        """The demo is doing this now."""
        ...

    def begin(self, plan: DemoPlan, models: Sequence[TrainedModel], broken: str) -> None:
        """Queries begin; `broken` is the reference of the model that will fail."""
        ...

    def sample(self, sample: DemoSample) -> None:
        """There is a new sample."""
        ...


@contextmanager
def open_view(console: Console) -> Iterator[DemoView]:
    """The view that fits the console, for the length of a block."""
    if not console.is_terminal:
        yield LineView(console)
        return
    view = LiveView()
    with Live(console=console, refresh_per_second=REFRESH_PER_S, get_renderable=view.render):
        yield view


class LineView:
    """A line every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._plan = DemoPlan()
        self._not_before_s = 0.0

    def stage(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        self._console.file.flush()

    def begin(self, plan: DemoPlan, models: Sequence[TrainedModel], broken: str) -> None:
        self._plan = plan
        errors = ", ".join(f"{model.name} {model.validation_error:.1%}" for model in models)
        self.stage(f"validation errors: {errors}; {broken} will fail at {plan.fails_at:.0%} of the queries")

    def sample(self, sample: DemoSample) -> None:
        if time.monotonic() < self._not_before_s:
            return
        self._not_before_s = time.monotonic() + LINE_EVERY_S
        load = sample.load
        leaders = " ".join(f"{policy}={_heaviest(weights)}" for policy, weights in sample.weights.items())
        self.stage(
            f"{load.answered:,}/{self._plan.queries:,} {PHASE_TITLES[_phase(sample, self._plan)]} {leaders} "
            f"p50={_ms(load.p50_ms)} p99={_ms(load.p99_ms)} "
            f"cached={sample.hit_ratio:.0%} defaults={sample.defaults:.0f} "
            f"learned={sample.learned:,.0f}/{load.feedback_sent:,}"
        )


class LiveView:
    """Progress, weights as bars, batches, and the numbers of the last second."""

    def __init__(self) -> None:
        self._stage, self._since_s = "starting", time.monotonic()
        self._run: tuple[DemoPlan, Sequence[TrainedModel], str] | None = None
        self._samples: list[DemoSample] = []

    def stage(self, text: str) -> None:
        self._stage, self._since_s = text, time.monotonic()

    def begin(self, plan: DemoPlan, models: Sequence[TrainedModel], broken: str) -> None:
        self._run = plan, models, broken
        self.stage(f"{plan.rate_per_s:g} queries a second to two applications; Ctrl-C ends everything")

    def sample(self, sample: DemoSample) -> None:
        self._samples = [*self._samples[-4:], sample]

    def render(self) -> RenderableType:
        """The view now."""
        body: RenderableType = Text(f"{self._stage}, {time.monotonic() - self._since_s:.0f} s")
        if self._run is not None and self._samples:
            body = Group(dashboard(*self._run, self._samples), Text(f"\n{self._stage}", style="dim"))
        return Panel(body, title="clipper-stream demo", title_align="left", border_style="dim", padding=(1, 2))


def dashboard(
    plan: DemoPlan, models: Sequence[TrainedModel], broken: str, samples: Sequence[DemoSample]
) -> RenderableType:
    """The live view while queries flow.

    Args:
        plan: The run.
        models: Every model.
        broken: Reference of the one that fails.
        samples: The latest samples, the newest last; at least one.
    """
    now = samples[-1]
    failed = _phase(now, plan) == FAILED
    return Group(
        _progress(plan, now, broken),
        Text(),
        _models(models, broken, now, failed=failed),
        Text(),
        _numbers(samples),
    )


def _progress(plan: DemoPlan, now: DemoSample, broken: str) -> RenderableType:
    phase = _phase(now, plan)
    unusual = {FAILED: f"{broken} answers wrong digits", RESTORED: f"{broken} is whole again"}
    line = Table.grid(padding=(0, 2))
    line.add_row(
        ProgressBar(total=plan.queries, completed=now.load.answered, width=40),
        f"{now.load.answered:,} / {plan.queries:,}",
        Text(f"{PHASE_TITLES[phase]}: {unusual.get(phase, 'all models whole')}", style=PHASE_STYLE[phase]),
    )
    return line


def _models(models: Sequence[TrainedModel], broken: str, now: DemoSample, *, failed: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("model")
    table.add_column("error", justify="right")
    for policy in now.weights:
        table.add_column(f"weight, {policy}")
    table.add_column("batch", justify="right")
    table.add_column("limit", justify="right")
    for model in models:
        batches = now.batches[model.ref]
        style = "bold red" if failed and model.ref == broken else ""
        bars = [_bar(weights.get(model.ref, 0.0)) for weights in now.weights.values()]
        table.add_row(
            Text(model.name, style=style),
            f"{model.validation_error:.1%}",
            *bars,
            f"{batches.mean:.1f}",
            f"{batches.limit:.0f}",
        )
    return table


def _numbers(samples: Sequence[DemoSample]) -> RenderableType:
    now, first, load = samples[-1], samples[0].load, samples[-1].load
    took_s = load.at_s - first.at_s
    rate = (load.answered - first.answered) / took_s if took_s else 0.0
    cells = {
        "throughput": f"{rate:,.0f} /s",
        "latency p50": _ms(load.p50_ms),
        "p99": _ms(load.p99_ms),
        "cache hits": f"{now.hit_ratio:.1%}",
        "defaults": f"{now.defaults:,.0f}",
        "learned": f"{now.learned:,.0f}/{load.feedback_sent:,}",
    }
    grid = Table.grid(padding=(0, 3))
    grid.add_row(*(Text.assemble((f"{name} ", "dim"), value) for name, value in cells.items()))
    return grid


def _bar(weight: float) -> Text:
    filled = round(weight * BAR_CELLS)
    return Text.assemble(("━" * filled, "cyan"), ("━" * (BAR_CELLS - filled), "bright_black"), f" {weight:4.0%}")


def _phase(sample: DemoSample, plan: DemoPlan) -> str:
    return plan.phase_of(min(sample.load.sent, plan.queries - 1))


def _heaviest(weights: Mapping[str, float]) -> str:
    if not weights:
        return "-"
    ref = max(weights, key=lambda model: weights[model])
    return f"{ref.partition(':')[0]}:{weights[ref]:.0%}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}ms"
