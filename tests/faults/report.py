"""The table of a run of the fault suite: a line a case, printed at the end and written to files."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

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


class FaultReport:
    """The lines of one run."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

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
        self.lines.append(
            Line(case=case, kills=kills, stalls_s=stalls_s, memory_mib=memory_mib, note=note, **(found or {}))
        )

    def markdown(self) -> str:
        """The table."""
        rows = [COLUMNS, ("---",) * len(COLUMNS), *(line.cells for line in self.lines)]
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)

    def write(self, folder: Path) -> None:
        """`faults.md` and `faults.json` in this folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "faults.md").write_text(self.markdown(), encoding="utf-8")
        (folder / "faults.json").write_text(
            json.dumps([asdict(line) for line in self.lines], indent=1) + "\n", encoding="utf-8"
        )
