"""Three routers and two hosts through minutes of random faults, from a seed that is told."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import oracle
import pytest
from e2e.programs import Program, RunningProcess
from e2e.traffic import Traffic
from faults.compaction import compact_often
from faults.deployment import CONFIGURATION, OwnDeployment
from faults.report import FaultReport
from faults.restored import judge_twice, without_prediction
from faults.verdict import STOPS_WITHIN_MS, Span

from clipper_agents.broker import EmbeddedBroker
from clipper_topics.catalogue import Catalogue

pytestmark = [pytest.mark.faults, pytest.mark.seeded, pytest.mark.timeout(1800)]

LASTS_S = 360.0
SHORT_S, SHORT_SEED = 30.0, 2128
"""Of the schedule that `make test` runs: kills of each kind, and freezes of two routers beyond their session."""
ROUTERS, HOSTS = 3, 2
SESSION_S = 10.0
QUERIES_PER_S = 150.0
EARLY_S, DELAY_S = 4.0, 30.0
PAUSE_S = 8.0
"""Between two faults at most."""
STALL_S = 0.4
POLL_S = 0.05
WEIGHTS = {
    "kill a router": 6, "kill a host": 3, "wipe a router": 3, "kill the supervisor": 1, "kill the broker": 1,
    "freeze a router": 6, "freeze two routers beyond their session": 2, "freeze a host": 3, "freeze the broker": 2,
}  # fmt: skip


class Fault(NamedTuple):
    """What is done, and when.

    Attributes:
        after_s: Since the fault before has been done, in seconds.
        what: One of `WEIGHTS`.
        number: Of the router or host.
        for_s: How long something is frozen.
    """

    after_s: float
    what: str
    number: int
    for_s: float


def schedule(seed: int, lasts_s: float) -> Iterator[Fault]:
    """The faults of a seed, in order."""
    rng = random.Random(seed)
    while (lasts_s := lasts_s - (after_s := rng.uniform(1.0, PAUSE_S))) > 0.0:
        (what,) = rng.choices([*WEIGHTS], [*WEIGHTS.values()])
        longest_s = 1.5 * SESSION_S if what == "freeze a router" else 0.6 * SESSION_S
        for_s = rng.uniform(1.2, 1.6) * SESSION_S if "beyond" in what else rng.uniform(0.1, longest_s)
        yield Fault(after_s, what, rng.randrange(HOSTS if "host" in what else ROUTERS), for_s)


@dataclass
class Chaos:
    """A deployment to which faults are done.

    Attributes:
        frozen: Until when, by `time.monotonic`, and how it is resumed.
        done: What was done how often.
        stood_still: When routers were frozen.
    """

    broker: EmbeddedBroker
    deployment: OwnDeployment
    stack: ExitStack
    frozen: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    stood_still: list[Span] = field(default_factory=list)

    def start(self) -> None:
        """Start the supervisor; it serves when this returns."""
        self.up: Program = self.stack.enter_context(self.deployment.start("up", "--set", f"router.processes={ROUTERS}"))
        self.up.ready()

    def wait(self, for_s: float) -> None:
        """Let time pass, and resume what was frozen for long enough."""
        until_s = time.monotonic() + for_s
        while (now_s := time.monotonic()) < until_s:
            for one in [one for one in self.frozen if one[0] <= now_s]:
                self.frozen.remove(one)
                one[1]()
            time.sleep(POLL_S)

    def run(self, fault: Fault) -> None:
        """Do it; a process that is being started again is left alone."""
        routers = [self._child(f"router-{(fault.number + each) % ROUTERS}") for each in range(ROUTERS)]
        host = self._child(f"host.slow-sum.1.{fault.number}")
        data = self.deployment.data / f"router-{fault.number}"
        act = {
            "kill a router": lambda: _send(routers[0], signal.SIGKILL),
            "kill a host": lambda: _send(host, signal.SIGKILL),
            "wipe a router": lambda: self._wipe(routers[0], data),
            "kill the supervisor": self._kill_supervisor,
            "kill the broker": self._kill_broker,
            "freeze a router": lambda: self._freeze_router(routers[0], fault.for_s),
            "freeze a host": lambda: self._freeze(host, fault.for_s),
            "freeze the broker": lambda: self._freeze_broker(fault.for_s),
            "freeze two routers beyond their session": lambda: self._freeze_two(routers, fault.for_s),
        }[fault.what]
        self.done[fault.what] += act()

    def thaw(self) -> None:
        """Resume everything now."""
        for _, resume in self.frozen:
            resume()
        self.frozen.clear()

    def _child(self, name: str) -> RunningProcess | None:
        running = (one for one in self.up.children() if f"--instance {name} " in one.command)
        return next((one for one in running if one.runs), None)

    def _wipe(self, process: RunningProcess | None, data: Path) -> bool:
        if not data.exists() or not _send(process, signal.SIGSTOP):
            return False
        data.rename(data.with_name(f"{data.name} {self.done.total()}"))
        return _send(process, signal.SIGKILL)

    def _kill_supervisor(self) -> bool:
        self.thaw()  # a frozen router would hold the directory of the next one
        self.up.signal(signal.SIGKILL)
        self.up.ended()
        self.start()
        return True

    def _kill_broker(self) -> bool:
        self.broker.stop(kill=True)
        self.broker.start()
        return True

    def _freeze(self, process: RunningProcess | None, for_s: float) -> bool:
        self.frozen.append((time.monotonic() + for_s, lambda: _send(process, signal.SIGCONT)))
        return _send(process, signal.SIGSTOP)

    def _freeze_router(self, process: RunningProcess | None, for_s: float) -> bool:
        since_ms = 1e3 * time.time()
        frozen = self._freeze(process, for_s)
        self.stood_still.append((since_ms, 1e3 * time.time() + STOPS_WITHIN_MS))
        return frozen

    def _freeze_broker(self, for_s: float) -> bool:
        self.broker.node(1).freeze()
        self.frozen.append((time.monotonic() + for_s, self.broker.node(1).thaw))
        return True

    def _freeze_two(self, routers: Sequence[RunningProcess | None], for_s: float) -> bool:
        """With the broker frozen for a moment before, so that steps of both are on their way for longer."""
        self._freeze_broker(STALL_S)
        first, second = (self._freeze_router(one, for_s) for one in routers[:2])
        return first and second


def _send(process: RunningProcess | None, number: signal.Signals) -> bool:
    if process is None or not process.runs:
        return False
    os.kill(process.pid, number)
    return True


def test_a_random_schedule(tmp_path: Path, pytestconfig: pytest.Config, short: bool, fault_report: FaultReport):
    """Kills, freezes, wipes and compaction while feedback comes early, late and twice: each counts once."""
    seed = pytestconfig.getoption("--seed")
    if seed is None:
        seed = SHORT_SEED if short else random.SystemRandom().randrange(1_000_000)
    print(f"--seed {seed} repeats this schedule")  # noqa: T201 (shown when the test fails)
    configuration = tmp_path / "kills.toml"
    configuration.write_text(
        CONFIGURATION.read_text().replace('name = "slow-sum"\n', f'name = "slow-sum"\nreplicas = {HOSTS}\n')
    )
    catalogue = Catalogue(partitions=4)
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(tmp_path / "kafka"))
        deployment = OwnDeployment.on(broker.connection, catalogue, tmp_path, configuration=configuration)
        client = deployment.client
        compact_often(client, catalogue.selection_changelog, segment_ms=1000)
        chaos = Chaos(broker, deployment, stack)
        stack.callback(chaos.thaw)
        chaos.start()
        traffic = stack.enter_context(
            Traffic(
                client, catalogue.prefix, catalogue.partitions, QUERIES_PER_S, seed, early_s=EARLY_S, delay_s=DELAY_S
            )
        )
        for fault in schedule(seed, SHORT_S if short else LASTS_S):
            chaos.wait(fault.after_s)
            chaos.run(fault)
        chaos.thaw()
        learned = oracle.positions(oracle.table(client.read(catalogue.selection_changelog)))
        traffic.finish(lambda: without_prediction(client, catalogue.prefix))
        verdict = judge_twice(deployment, chaos.up)
    done = ", ".join(f"{times} x {what}" for what, times in sorted(chaos.done.items()))
    note = f"seed {seed}: {done}; {sum(learned.values())} feedbacks read meanwhile"
    fault_report.add("a random schedule", verdict, kills=chaos.done.total(), note=note)
    verdict.check(stood_still=chaos.stood_still)
