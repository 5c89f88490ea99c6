"""The table of a run of the fault suite: a line a case, printed at the end and written to files."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faults.verdict import Verdict

COLUMNS = (
    "case", "kills", "queries", "lost", "differing", "double-counted", "rows differing", "stall p50", "stall max",
    "memory", "note",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One case.

    Attributes:
        case: What was done.
        kills: How many processes were killed, frozen or cut off.
        queries: How many queries were asked.
        lost: How many have no prediction.
        differing: How many have two that are not the same.
        double_counted: Feedbacks counted more often than once, or counted though they must not be.
        rows_differing: Rows of the selection table that are not, bit for bit, the fold of the logs.
        stalls_s: The longest time without any answer after each fault, seconds.
        memory_mib: The most that a process of ours had, MiB.
        note: What else was seen, in a few words.
    """

    case: str
    kills: int = 0
    queries: int = 0
    lost: int = 0
    differing: int = 0
    double_counted: int = 0
    rows_differing: int = 0
    stalls_s: Sequence[float] = ()
    memory_mib: float | None = None
    note: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """The line, by column."""
        p50, longest = (statistics.median(self.stalls_s), max(self.stalls_s)) if self.stalls_s else (None, None)
        counts = (self.kills, self.queries, self.lost, self.differing, self.double_counted, self.rows_differing)
        return (self.case, *map(str, counts), _seconds(p50), _seconds(longest), _mib(self.memory_mib), self.note)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def _mib(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} MiB"


HEAD = """\
# Faults

Made by `make faults`, on two cores. What is promised is in [delivery](../../docs/explanation/delivery.md).

*Kills* are processes that were killed, frozen, cut off or damaged. *Lost* are queries without a prediction or a dead
letter, *differing* those with two predictions that are not the same bytes, *double-counted* feedbacks that the table
counts and the serial fold of the logs does not, or the other way round, and *rows differing* rows of the table of which
a bit is another than the fold's. Each case is judged twice: as it is, and after compaction and the loss of every
directory. A *stall* is the longest time without an answer after a fault; what is killed runs under `up`, except a
router that is killed for good, gateways, and what is behind one. *Memory* is the most that one process had.
"""
PROPERTY = "fault"
"""Name of a test's property that holds a line: so it comes through from whichever process ran the test."""


class FaultReport:
    """The lines of one run, or of one test of it.

    Args:
        properties: Of the test, where its lines are noted; absent: they are read by `take`.
    """

    def __init__(self, properties: list[tuple[str, object]] | None = None) -> None:
        self.lines: list[Line] = []
        self._properties = properties

    def take(self, properties: Iterable[tuple[str, Any]]) -> bool:
        """The lines of a test that has ended; whether there are any."""
        lines = [Line(**value) for name, value in properties if name == PROPERTY]
        self.lines += lines
        return bool(lines)

    def add(
        self,
        case: str,
        verdict: Verdict | None = None,
        *,
        kills: int = 0,
        stalls_s: Sequence[float] = (),
        memory_mib: float | None = None,
        note: str = "",
    ) -> None:
        """Note a case, before its verdict is checked: a case that fails is in the table too."""
        found = verdict and {
            "queries": verdict.queries,
            "lost": len(verdict.lost),
            "differing": len(verdict.differing),
            "double_counted": verdict.double_counted + verdict.uncounted,
            "rows_differing": len(verdict.rows_differing),
        }
        line = Line(case=case, kills=kills, stalls_s=[*stalls_s], memory_mib=memory_mib, note=note, **(found or {}))
        self.lines.append(line)
        if self._properties is not None:
            self._properties.append((PROPERTY, asdict(line)))

    @property
    def total(self) -> Line:
        """All cases together."""
        counted = ("kills", "queries", "lost", "differing", "double_counted", "rows_differing")
        return Line(case="all", **{name: sum(getattr(line, name) for line in self.lines) for name in counted})

    def markdown(self) -> str:
        """The table."""
        rows = [COLUMNS, ("---",) * len(COLUMNS), *(line.cells for line in self.lines), self.total.cells]
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)

    def page(self) -> str:
        """The table as a page of the reference."""
        return f"{HEAD}\n{self.markdown()}"

    def write(self, folder: Path) -> None:
        """`faults.md` and `faults.json` in this folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "faults.md").write_text(self.page(), encoding="utf-8")
        (folder / "faults.json").write_text(
            json.dumps([asdict(line) for line in self.lines], indent=1) + "\n", encoding="utf-8"
        )
