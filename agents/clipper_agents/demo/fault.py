"""Breaks and repairs the best model, from outside of the process that serves it."""

from pathlib import Path

from clipper_agents.demo.phases import FAILED, phase_of
from clipper_agents.demo.plan import DemoPlan


class Fault:
    """The file whose existence breaks the model (`faulty.FaultyModel`); broken during the middle phase.

    Args:
        flag: Path of the file.
        plan: Says when.
    """

    def __init__(self, flag: Path, plan: DemoPlan) -> None:
        self._flag, self._plan, self._broken = flag, plan, False

    def before_query(self, query: int) -> None:
        """Called just before a query is sent: breaks or repairs the model where a phase begins."""
        broken = query < self._plan.queries and phase_of(query, self._plan) == FAILED
        if broken != self._broken:
            self._broken = broken
            if broken:
                self._flag.touch()
            else:
                self._flag.unlink(missing_ok=True)
