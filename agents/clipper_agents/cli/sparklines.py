"""Curves as lines of text: what `watch` has seen of applications in the last minutes.

Rules of this file:
- A character is `SLOT_S` seconds, and its value the last one seen in them; a blank where nothing is known.
- Every curve begins at 0, so that half as high is half as much; that of a weight always ends at 1.
"""

from collections import deque
from collections.abc import Iterable

from rich.console import Console

from clipper_agents.cli.terminal import FOLDED_WIDTH, TextTable, table
from clipper_agents.status.figures import Point
from clipper_agents.status.model import ApplicationStatus
from clipper_agents.status.watch import Snapshot

BLOCKS = "▁▂▃▄▅▆▇█"
SLOT_S = 5
SLOTS = 60
"""Five minutes: a canary's step or two, in a line that fits a terminal of 100 columns."""
HEADINGS = ("figure", "scale", f"{SLOT_S} s each, newest last")
SCALE_WIDTH = 16
"""More than `0 to 1234567` and the blanks between columns take."""
LEAST_LINES = 6
"""Of an application with its curves."""
WEIGHT = "weight "


def sparkline(values: Iterable[float | None], top: float) -> str:
    """Values as blocks, from 0 to `top`; a blank for None.

    >>> sparkline([0.0, 0.5, None, 1.0], 1.0)
    '▁▅ █'
    """
    highest = len(BLOCKS) - 1
    return "".join(" " if one is None else BLOCKS[round(highest * min(1.0, one / (top or 1.0)))] for one in values)


class RecentCurves:
    """Keeps figures of every application for `SLOTS` times `SLOT_S` seconds, and draws them."""

    def __init__(self) -> None:
        self._slots: deque[dict[str, Point]] = deque(maxlen=SLOTS)
        self._newest: int | None = None

    def add(self, look: Snapshot) -> None:
        """Take in a snapshot, each later than the one before; without a broker, nothing is known of its time."""
        slot = int(look.at_s // SLOT_S)
        for _ in range(1 if self._newest is None else min(SLOTS, slot - self._newest)):
            self._slots.append({})
        self._newest = slot if self._newest is None else max(slot, self._newest)
        answered = look.applications if look.kafka_answers else {}
        self._slots[-1] = {name: _point(status) for name, status in answered.items()}

    def tables(self, screen: Console) -> dict[str, TextTable]:
        """A table of curves for each application; none where the screen is too low, or its encoding has no blocks."""
        try:
            BLOCKS.encode(screen.encoding)
        except (UnicodeEncodeError, LookupError):
            return {}
        room = max(len(HEADINGS[-1]), screen.width - FOLDED_WIDTH - SCALE_WIDTH - 4)
        shown = list(self._slots)[-room:]
        names = dict.fromkeys(name for slot in shown for name, point in slot.items() if point)
        if len(names) * LEAST_LINES > screen.height:
            return {}
        return {name: _curves([slot.get(name, {}) for slot in shown]) for name in names}


def _point(status: ApplicationStatus) -> Point:
    found = {f"{WEIGHT}{one.model}": one.weight for one in status.versions if one.weight is not None}
    if status.window_s:
        found["queries/s"] = status.queries_per_s
    if status.latency is not None:
        found["p99 ms"] = status.latency.p99_ms
    return found


def _curves(points: list[Point]) -> TextTable:
    """A row for each figure that any of the points has: rate and latency, then weights in their newest order."""
    names = sorted(dict.fromkeys(name for point in reversed(points) for name in point), key=_is_weight)
    rows = []
    for name in names:
        values = [point.get(name) for point in points]
        top = 1.0 if _is_weight(name) else max(one for one in values if one is not None)
        digits = 1 if top < 10 and not _is_weight(name) else 0  # noqa: PLR2004 (two digits)
        rows.append((name, f"0 to {top:.{digits}f}", sparkline(values, top)))
    return table(HEADINGS, rows, wrapped=HEADINGS[:1])


def _is_weight(name: str) -> bool:
    return name.startswith(WEIGHT)
