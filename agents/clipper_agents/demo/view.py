"""What a demo says meanwhile: a line when it does something else, and every few seconds while it has queries.

A terminal also has the progress bar of the load generator; all else there is to see shows `clipper-stream watch`.
"""

import threading
import time
import webbrowser

from rich.console import Console

from clipper_agents.demo.plan import PHASE_TITLES, POLICIES, DemoPlan
from clipper_agents.demo.run_recorder import DemoSample

LINE_EVERY_S = 5.0


class DemoView:
    """Prints what happens, and opens the console of the deployment in a browser if it is to."""

    def __init__(self, console: Console, plan: DemoPlan, *, open_console: bool = False) -> None:
        self._console, self._plan, self._next_s, self._opens = console, plan, 0.0, open_console

    def stage(self, text: str) -> None:
        """The demo is doing this now."""
        self._console.print(text, soft_wrap=True)
        self._console.file.flush()

    def console(self, url: str) -> None:
        """The console is at this URL."""
        self.stage(f"console: {url}")
        if self._opens:
            threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()  # which may wait for the browser

    def sample(self, sample: DemoSample) -> None:
        """There is a new sample."""
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + LINE_EVERY_S
        phase = PHASE_TITLES[self._plan.phase_of(min(sample.sent, self._plan.queries - 1))]
        leaders = " ".join(f"{policy}={_heaviest(sample.weights(policy))}" for policy in POLICIES)
        cached = sample.cache["hits"] / max(1, sample.cache["lookups"])
        self.stage(
            f"{sample.answered:,}/{self._plan.queries:,} {phase} {leaders} "
            f"p50={_ms(sample.p50_ms)} p99={_ms(sample.p99_ms)} cached={cached:.0%} defaults={sample.defaults:.0f} "
            f"learned={sum(sample.feedback.values()):,}/{sample.feedback_sent:,}"
        )


def _heaviest(weights: dict[str, float]) -> str:
    if not weights:
        return "-"
    ref = max(weights, key=lambda model: weights[model])
    return f"{ref.partition(':')[0]}:{weights[ref]:.0%}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}ms"
