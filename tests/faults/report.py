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
COUNTED = ("kills", "queries", "lost", "differing", "double_counted", "rows_differing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One case; the words are explained in `HEAD`."""

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
        stalls_s = (statistics.median(self.stalls_s), max(self.stalls_s)) if self.stalls_s else ()
        stalls = [f"{stall_s:.1f} s" for stall_s in stalls_s] or ["", ""]
        memory = "" if self.memory_mib is None else f"{self.memory_mib:.0f} MiB"
        return (self.case, *(str(getattr(self, name)) for name in COUNTED), *stalls, memory, self.note)


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
        self.lines = list[Line]()
        self._properties = properties

    def take(self, properties: Iterable[tuple[str, Any]]) -> bool:
        """The lines of a test that has ended; whether there are any."""
        lines = [Line(**value) for name, value in properties if name == PROPERTY]
        self.lines += lines
        return bool(lines)

    def add(self, case: str, verdict: Verdict | None = None, stalls_s: Sequence[float] = (), **line: Any) -> None:
        """Note a case, before its verdict is checked: a case that fails is in the table too."""
        if verdict is not None:
            line |= {name: len(getattr(verdict, name)) for name in ("lost", "differing", "rows_differing")}
            line |= {"queries": verdict.queries, "double_counted": verdict.double_counted + verdict.uncounted}
        self.lines.append(Line(case=case, stalls_s=[*stalls_s], **line))
        if self._properties is not None:
            self._properties.append((PROPERTY, asdict(self.lines[-1])))

    def markdown(self) -> str:
        """The table, and a line for all cases together."""
        total = Line(case="all", **{name: sum(getattr(line, name) for line in self.lines) for name in COUNTED})
        rows = [COLUMNS, ("---",) * len(COLUMNS), *(line.cells for line in (*self.lines, total))]
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)

    def write(self, folder: Path) -> None:
        """As a page of the reference, `faults.md`, and `faults.json`, in this folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "faults.md").write_text(f"{HEAD}\n{self.markdown()}", encoding="utf-8")
        lines = json.dumps([asdict(line) for line in self.lines], indent=1)
        (folder / "faults.json").write_text(f"{lines}\n", encoding="utf-8")
