"""The table of a run of the fault suite: a line a case, printed at the end and written to files."""

import csv
import io
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
    def stalls(self) -> tuple[str, str]:
        """Median and longest stall; empty without any."""
        if not self.stalls_s:
            return "", ""
        return f"{statistics.median(self.stalls_s):.1f} s", f"{max(self.stalls_s):.1f} s"

    @property
    def cells(self) -> tuple[str, ...]:
        memory = "" if self.memory_mib is None else f"{self.memory_mib:.0f} MiB"
        return (self.case, *(str(getattr(self, name)) for name in COUNTED), *self.stalls, memory, self.note)


HEAD = """\
# Faults

Made by `make faults`, on two cores. What is promised is in [delivery](../../docs/explanation/delivery.md). Each case is
judged twice: as it is, and after compaction and the loss of every directory.

*Lost* are queries without a prediction or a dead letter, *differing* those with two predictions that are not the same
bytes, *double-counted* feedbacks that the table counts and the serial fold of the logs does not, or the other way
round, and *rows differing* rows of the table of which a bit is another than the fold's. A *stall* is the longest time
without an answer after a fault: of killed, frozen, cut off or damaged processes under `up`, except a router that is
killed for good, gateways, and what is behind one.
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

    @property
    def total(self) -> Line:
        """All cases together."""
        return Line(case="all", **{name: sum(getattr(line, name) for line in self.lines) for name in COUNTED})

    def table(self) -> str:
        """All lines, as CSV."""
        written = io.StringIO()
        rows = [COLUMNS, *(line.cells for line in (*self.lines, self.total))]
        csv.writer(written, lineterminator="\n").writerows(rows)
        return written.getvalue()

    def page(self) -> str:
        """What all cases found, and how long answers stalled in those in which they did."""
        found = [f"{getattr(self.total, name):,} {name.replace('_', ' ')}" for name in COUNTED]
        shown = [(line.case, str(line.kills), *line.stalls) for line in self.lines if line.stalls_s]
        rows = [("case", "kills", "stall p50", "stall max"), ("---",) * 4, *shown]
        lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
        return f"{HEAD}\n{len(self.lines)} cases: {', '.join(found)}. [faults.csv](faults.csv) has each.\n\n{lines}"

    def write(self, folder: Path) -> None:
        """As the page `faults.md` with its table `faults.csv`, and as `faults.json`, in this folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "faults.md").write_text(self.page(), encoding="utf-8")
        (folder / "faults.csv").write_text(self.table(), encoding="utf-8")
        lines = json.dumps([asdict(line) for line in self.lines], indent=1)
        (folder / "faults.json").write_text(f"{lines}\n", encoding="utf-8")
