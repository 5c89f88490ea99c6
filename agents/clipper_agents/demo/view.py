"""What a demo shows meanwhile: a live view in a terminal, a line every few seconds elsewhere."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clipper_agents.demo.models import TrainedModel
from clipper_agents.demo.plan import FAILED, PHASE_TITLES, POLICIES, RESTORED, DemoPlan
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
        self._console, self._plan = console, DemoPlan()
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
        leaders = " ".join(f"{policy}={_heaviest(sample.weights(policy))}" for policy in POLICIES)
        self.stage(
            f"{sample.answered:,}/{self._plan.queries:,} {PHASE_TITLES[_phase(sample, self._plan)]} {leaders} "
            f"p50={_ms(sample.p50_ms)} p99={_ms(sample.p99_ms)} cached={sample.hit_ratio:.0%} "
            f"defaults={sample.defaults:.0f} learned={sample.learned:,.0f}/{sample.feedback_sent:,}"
        )


class LiveView:
    """Progress, weights as bars, batches, and the numbers of the last seconds."""

    def __init__(self) -> None:
        self._stage, self._since_s = "starting", time.monotonic()
        self._plan, self._models, self._broken = DemoPlan(), list[TrainedModel](), ""
        self._samples: list[DemoSample] = []

    def stage(self, text: str) -> None:
        self._stage, self._since_s = text, time.monotonic()

    def begin(self, plan: DemoPlan, models: Sequence[TrainedModel], broken: str) -> None:
        self._plan, self._models, self._broken = plan, list(models), broken
        self.stage(f"{plan.rate_per_s:g} queries a second to two applications; Ctrl-C ends everything")

    def sample(self, sample: DemoSample) -> None:
        self._samples = [*self._samples[-4:], sample]

    def render(self) -> RenderableType:
        """The view now."""
        body: RenderableType = Text(f"{self._stage}, {time.monotonic() - self._since_s:.0f} s")
        if self._samples:
            parts = (self._progress(), Text(), self._model_table(), Text(), self._numbers())
            body = Group(*parts, Text(f"\n{self._stage}", style="dim"))
        return Panel(body, title="clipper-stream demo", title_align="left", border_style="dim", padding=(1, 2))

    def _progress(self) -> RenderableType:
        now, phase = self._samples[-1], _phase(self._samples[-1], self._plan)
        unusual = {FAILED: f"{self._broken} answers wrong digits", RESTORED: f"{self._broken} is repaired"}
        line = Table.grid(padding=(0, 2))
        line.add_row(
            ProgressBar(total=self._plan.queries, completed=now.answered, width=40),
            f"{now.answered:,} / {self._plan.queries:,}",
            Text(f"{PHASE_TITLES[phase]}: {unusual.get(phase, 'all models work')}", style=PHASE_STYLE[phase]),
        )
        return line

    def _model_table(self) -> RenderableType:
        now = self._samples[-1]
        failed = _phase(now, self._plan) == FAILED
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("model")
        table.add_column("error", justify="right")
        for policy in POLICIES:
            table.add_column(f"weight, {policy}")
        table.add_column("batch", justify="right")
        table.add_column("limit", justify="right")
        for model in self._models:
            batches = now.batches(model.ref)
            table.add_row(
                Text(model.name, style="bold red" if failed and model.ref == self._broken else ""),
                f"{model.validation_error:.1%}",
                *(_bar(now.weights(policy).get(model.ref, 0.0)) for policy in POLICIES),
                f"{batches.mean:.1f}",
                f"{batches.limit:.0f}",
            )
        return table

    def _numbers(self) -> RenderableType:
        first, now = self._samples[0], self._samples[-1]
        took_s = now.at_s - first.at_s
        rate = (now.answered - first.answered) / took_s if took_s else 0.0
        cells = {
            "throughput": f"{rate:,.0f} /s",
            "latency p50": _ms(now.p50_ms),
            "p99": _ms(now.p99_ms),
            "cache hits": f"{now.hit_ratio:.1%}",
            "defaults": f"{now.defaults:,.0f}",
            "learned": f"{now.learned:,.0f}/{now.feedback_sent:,}",
        }
        grid = Table.grid(padding=(0, 3))
        grid.add_row(*(Text.assemble((f"{name} ", "dim"), value) for name, value in cells.items()))
        return grid


def _bar(weight: float) -> Text:
    filled = round(weight * BAR_CELLS)
    return Text.assemble(("━" * filled, "cyan"), ("━" * (BAR_CELLS - filled), "bright_black"), f" {weight:4.0%}")


def _phase(sample: DemoSample, plan: DemoPlan) -> str:
    return plan.phase_of(min(sample.sent, plan.queries - 1))


def _heaviest(weights: dict[str, float]) -> str:
    if not weights:
        return "-"
    ref = max(weights, key=lambda model: weights[model])
    return f"{ref.partition(':')[0]}:{weights[ref]:.0%}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}ms"
