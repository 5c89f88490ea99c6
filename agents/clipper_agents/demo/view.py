"""What one sees meanwhile: a live view in a terminal, a line every few seconds elsewhere."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clipper_agents.demo.models import TrainedModel
from clipper_agents.demo.phases import FAILED, RESTORED, TITLES, phase_of
from clipper_agents.demo.plan import DemoPlan
from clipper_agents.demo.traffic import Traffic
from clipper_agents.demo.watching import Sample

REFRESH_PER_S = 4
LINE_EVERY_S = 5.0
BAR_CELLS = 18
PHASE_STYLE = {"before": "green", "failed": "bold red", "restored": "cyan"}


class View(Protocol):
    """Told what happens. A context manager for the time of the run."""

    def stage(self, text: str) -> None:
        """The demo is doing this now."""
        ...

    def begin(self, plan: DemoPlan, models: Sequence[TrainedModel], broken: str, traffic: Traffic) -> None:
        """Queries begin; `broken` is the reference of the model that will fail."""
        ...

    def sample(self, sample: Sample) -> None:
        """There is a new sample."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


def make_view(console: Console) -> View:
    """The view that fits the console."""
    return LiveView(console) if console.is_terminal else PlainView(console)


class PlainView:
    """A line every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._run: tuple[DemoPlan, Traffic] | None = None
        self._not_before_s = 0.0

    def stage(self, text: str) -> None:
        self._say(text)

    def begin(self, plan: DemoPlan, models: Sequence[TrainedModel], broken: str, traffic: Traffic) -> None:
        self._run = plan, traffic
        errors = ", ".join(f"{model.name} {model.validation_error:.1%}" for model in models)
        self._say(f"validation errors: {errors}; {broken} will fail at {plan.fails_at:.0%} of the queries")

    def sample(self, sample: Sample) -> None:
        if self._run is None or time.monotonic() < self._not_before_s:
            return
        self._not_before_s = time.monotonic() + LINE_EVERY_S
        plan, traffic = self._run
        heaviest = {policy: _heaviest(weights) for policy, weights in sample.weights.items()}
        leaders = " ".join(f"{policy}={leader}" for policy, leader in heaviest.items())
        self._say(
            f"{sample.answered:,}/{plan.queries:,} {_phase_title(sample, plan)} {leaders} "
            f"p50={_ms(traffic.recent_ms(50))} p99={_ms(traffic.recent_ms(99))} "
            f"cached={sample.hit_ratio:.0%} defaults={sample.defaults:.0f} "
            f"learned={sum(sample.feedback.values()):,.0f}/{sample.truths:,}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        self._console.file.flush()


class LiveView:
    """Progress, weights as bars, batches, and the numbers of the last second."""

    def __init__(self, console: Console) -> None:
        self._stage, self._since_s = "starting", time.monotonic()
        self._run: tuple[DemoPlan, Sequence[TrainedModel], str, Traffic] | None = None
        self._samples: list[Sample] = []
        self._live = Live(console=console, refresh_per_second=REFRESH_PER_S, get_renderable=self._render)

    def stage(self, text: str) -> None:
        self._stage, self._since_s = text, time.monotonic()

    def begin(self, plan: DemoPlan, models: Sequence[TrainedModel], broken: str, traffic: Traffic) -> None:
        self._run = plan, models, broken, traffic
        self.stage(f"{plan.rate_per_s:g} queries a second to two applications; Ctrl-C ends everything")

    def sample(self, sample: Sample) -> None:
        self._samples = [*self._samples[-4:], sample]

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def _render(self) -> RenderableType:
        body: RenderableType = Text(f"{self._stage}, {time.monotonic() - self._since_s:.0f} s")
        if self._run is not None and self._samples:
            plan, models, broken, traffic = self._run
            body = Group(dashboard(plan, models, broken, traffic, self._samples), Text(f"\n{self._stage}", style="dim"))
        return Panel(body, title="clipper-stream demo", title_align="left", border_style="dim", padding=(1, 2))


def dashboard(
    plan: DemoPlan, models: Sequence[TrainedModel], broken: str, traffic: Traffic, samples: Sequence[Sample]
) -> RenderableType:
    """The live view while queries flow.

    Args:
        plan: The run.
        models: Every model.
        broken: Reference of the one that fails.
        traffic: The run's own counts.
        samples: The latest samples, the newest last; at least one.
    """
    now, answered = samples[-1], traffic.answers.ledger.answered_count
    return Group(
        _progress(plan, answered, now, broken),
        Text(),
        _models(models, broken, now, failed=_phase(now, plan) == FAILED),
        Text(),
        _numbers(traffic, samples),
    )


def _progress(plan: DemoPlan, answered: int, now: Sample, broken: str) -> RenderableType:
    phase = _phase(now, plan)
    unusual = {FAILED: f"{broken} answers wrong digits", RESTORED: f"{broken} is whole again"}
    line = Table.grid(padding=(0, 2))
    line.add_row(
        ProgressBar(total=plan.queries, completed=answered, width=40),
        f"{answered:,} / {plan.queries:,}",
        Text(f"{TITLES[phase]}: {unusual.get(phase, 'all models whole')}", style=PHASE_STYLE[phase]),
    )
    return line


def _models(models: Sequence[TrainedModel], broken: str, now: Sample, *, failed: bool) -> Table:
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


def _numbers(traffic: Traffic, samples: Sequence[Sample]) -> RenderableType:
    first, now = samples[0], samples[-1]
    took_s = now.at_s - first.at_s
    rate = (now.answered - first.answered) / took_s if took_s else 0.0
    cells = {
        "throughput": f"{rate:,.0f} /s",
        "latency p50": _ms(traffic.recent_ms(50)),
        "p99": _ms(traffic.recent_ms(99)),
        "cache hits": f"{now.hit_ratio:.1%}",
        "defaults": f"{now.defaults:,.0f}",
        "learned": f"{sum(now.feedback.values()):,.0f}/{now.truths:,}",
    }
    grid = Table.grid(padding=(0, 3))
    grid.add_row(*(Text.assemble((f"{name} ", "dim"), value) for name, value in cells.items()))
    return grid


def _bar(weight: float) -> Text:
    filled = round(weight * BAR_CELLS)
    return Text.assemble(("━" * filled, "cyan"), ("━" * (BAR_CELLS - filled), "bright_black"), f" {weight:4.0%}")


def _phase(sample: Sample, plan: DemoPlan) -> str:
    return phase_of(min(sample.sent, plan.queries - 1), plan)


def _phase_title(sample: Sample, plan: DemoPlan) -> str:
    return TITLES[_phase(sample, plan)]


def _heaviest(weights: Mapping[str, float]) -> str:
    if not weights:
        return "-"
    ref = max(weights, key=lambda model: weights[model])
    return f"{ref.partition(':')[0]}:{weights[ref]:.0%}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}ms"
