"""What was found about a model: a finding a law, latencies by batch size, and an error that says all of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from clipper_stream.models.testing.latency import BatchLatency


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one law.

    Attributes:
        law: Its name.
        state: `kept`, `broken`, or `unknown` where it could not be looked at.
        found: What was seen, with the value and the bound.
        advice: What to do, empty when there is nothing to do.
    """

    law: str
    state: Literal["kept", "broken", "unknown"]
    found: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.law}: {self.found}" + (f"; {self.advice}" if self.advice else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that was found about a model.

    Attributes:
        findings: One a law, in the order of `LAWS`.
        latencies: By batch size, rising; empty when the model could not be asked.
        advice: What the latencies say about `batch.max_rows` and `batch.target_ms`.

    >>> Report(findings=(Finding(law="order", state="kept", found="3 rows"),)).kept
    True
    """

    findings: tuple[Finding, ...]
    latencies: tuple[BatchLatency, ...] = ()
    advice: str = ""

    @property
    def kept(self) -> bool:
        """Whether every law is kept."""
        return not self.broken

    @property
    def broken(self) -> list[Finding]:
        """Findings of broken laws."""
        return [finding for finding in self.findings if finding.state == "broken"]

    def plain(self) -> dict[str, Any]:
        """The report as values that JSON has."""
        return {"kept": self.kept, **asdict(self)}


class LawsBroken(AssertionError):
    """A model breaks laws; the message has every finding, and pytest shows it as a failed test."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("\n".join([f"the model breaks {len(findings)} laws:", *(f"- {each}" for each in findings)]))
        self.findings = tuple(findings)
