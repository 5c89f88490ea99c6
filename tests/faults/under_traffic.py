"""A deployment under traffic, to which something is done."""

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from e2e.programs import Program, RunningProcess, until
from e2e.traffic import Traffic
from faults.deployment import Deployment
from faults.report import FaultReport
from faults.restored import judge_twice
from faults.verdict import STOPS_WITHIN_MS, Span, Verdict, without_prediction
from faults.watching import Watch

SOME = 100
"""Queries of which the traffic is known to flow."""
READ_S = 0.3
"""By then the watch has seen what was written before."""


class Rig(ExitStack):
    """A deployment to which something is done; ends, as a context manager, with all that was started in it.

    Attributes:
        watch: Notes when answers arrive.
        faults_s: When something was done, by `time.monotonic`.
        stood_still: When a router was made to stand still, or its name was taken.
        stalls_s: The longest time without an answer (in some partition) after each fault, seconds; once judged.
    """

    in_partitions = False

    def __init__(self, deployment: Deployment, report: FaultReport, **watched: Any) -> None:
        super().__init__()
        self.deployment, self.client, self.catalogue, self.report = deployment, *deployment[:2], report
        self.watch = self.enter_context(Watch(self.client, self.catalogue.predictions, **watched))
        self.faults_s, self.stood_still, self.stalls_s = list[float](), list[Span](), list[float]()

    def serve(self, program: Program) -> Program:
        """It ends with the block, and serves when this returns."""
        self.enter_context(program).ready()
        return program

    def fault(self) -> None:
        self.faults_s.append(time.monotonic())

    def finish(self) -> None:
        """Nothing more is done."""
        self.stalls_s = self.watch.stalls_s(self.faults_s, in_partitions=self.in_partitions)

    def conclude(self, case: str, verdict: Verdict, least_applied: int = 10, **line: Any) -> None:
        self.report.add(case, verdict, **{"kills": len(self.faults_s), "stalls_s": self.stalls_s, **line})
        verdict.check(least_applied, self.stood_still)


class UnderTraffic(Rig):
    """It is asked and told all the time, as `Traffic` has it.

    Attributes:
        elsewhere: Whether queries may be repeated: after an outage a producer may have written one twice, and the
            second takes the answer of the first.
    """

    elsewhere = False

    def __init__(self, deployment: Deployment, report: FaultReport, watched: Any = None, **asked: Any) -> None:
        super().__init__(deployment, report, **(watched or {}))
        traffic = Traffic(self.client, self.catalogue.prefix, self.catalogue.partitions, **asked)
        self.traffic = self.enter_context(traffic)

    def asks(self, queries: int = SOME) -> None:
        goal = self.traffic.asked + queries
        until("more queries", lambda: self.traffic.asked >= goal)

    def answers(self) -> None:
        """Wait until somebody is answered by whoever runs now."""
        since_s = time.monotonic() + READ_S
        until("answers", lambda: any(at_s > since_s for at_s in self.watch.arrivals_s[-1:]))

    def flows(self) -> None:
        """Wait until each partition gives answers to queries that were asked after this call."""
        self.asks()
        seen = {number: len(each) for number, each in self.watch.arrivals_of_s.items()}
        until("answers", lambda: all(len(self.watch.arrivals_of_s[number]) > before for number, before in seen.items()))

    def freeze_router(self, router: Program | RunningProcess) -> None:
        since_ms = 1e3 * time.time()
        os.kill(router.pid, signal.SIGSTOP)
        self.stood_still.append((since_ms, 1e3 * time.time() + STOPS_WITHIN_MS))

    def lose(self, router: RunningProcess, data: Path) -> None:
        """Its data is gone; it is made to stand still first, so that it writes no more until it is killed."""
        os.kill(router.pid, signal.SIGSTOP)
        data.rename(data.with_name(f"{data.name} {time.monotonic_ns()}"))

    def finish(self) -> None:
        """Ask no more, and wait until all is answered and told."""
        super().finish()
        self.traffic.finish(*([lambda: without_prediction(self.deployment)] if self.elsewhere else []))

    def judged(self, *running: Program) -> Verdict:
        """What the logs say then, as `judge_twice`."""
        self.finish()
        return judge_twice(self.deployment, *running)
