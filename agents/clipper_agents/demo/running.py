"""The demo from its start to its result.

folder --> [train | start Kafka] --> [script | start router and hosts] --> traffic, watched
       --> counted --> committed --> verified
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipper_agents.demo.data import Digits, load_digits
from clipper_agents.demo.fault import Fault
from clipper_agents.demo.ground import kafka_ground, work_folder
from clipper_agents.demo.manifests import demo_settings
from clipper_agents.demo.models import TrainedModel, best_of, train
from clipper_agents.demo.offsets import input_topics, wait_committed
from clipper_agents.demo.plan import DemoPlan
from clipper_agents.demo.result import DemoResult, learning_fields, metric_fields, traffic_fields, verified_fields
from clipper_agents.demo.scoring import model_outcomes, policy_outcomes
from clipper_agents.demo.script import Scripted, write_scripted
from clipper_agents.demo.story import Story
from clipper_agents.demo.traffic import Traffic
from clipper_agents.demo.versions import versions
from clipper_agents.demo.view import View
from clipper_agents.demo.watching import Sample, Watcher
from clipper_agents.replay.verdicts import Verification
from clipper_agents.replay.verify import verify
from clipper_agents.settings import Settings
from clipper_agents.supervisor.deployment import Deployment
from clipper_agents.supervisor.supervised_process import Surroundings
from clipper_loadgen.run import open_answers

COUNTED_WITHIN_S = 15.0
"""For the last feedback to reach the router's counters."""
LOOK_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A demo that is over.

    Attributes:
        result: For JSON.
        story: For figures.
        models: The models that were served.
    """

    result: DemoResult
    story: Story
    models: list[TrainedModel]


async def run_demo(plan: DemoPlan, environ: Mapping[str, str], view: View, echo: Callable[[str], None]) -> Finished:
    """Run it.

    Args:
        plan: What to do.
        environ: The environment variables.
        view: Told what happens.
        echo: Gets every line that the processes print.

    Raises:
        SetupError: no Kafka, a wrong setting, or a process that cannot start.
    """
    started_s = time.perf_counter()
    with work_folder() as folder:
        view.stage("training five models, starting Kafka")
        training = asyncio.create_task(asyncio.to_thread(_trained, plan, folder))
        async with _ended(training), kafka_ground(environ) as ground:
            digits, models = await training
            broken, flag = best_of(models), folder / "broken"
            settings = demo_settings(
                plan, models, broken, flag, work_dir=folder, environ=environ, overrides=ground.overrides
            )
            view.stage("starting the router and five model hosts")
            scripting = asyncio.create_task(
                asyncio.to_thread(write_scripted, plan, digits, settings.catalogue.partitions)
            )
            around = Surroundings(echo=echo)
            async with (
                _ended(scripting),
                Deployment(settings, environ, log_level="info", surroundings=around) as deployment,
            ):
                show = _Show(plan, settings, models, broken, await scripting, started_s)
                return await show.run(deployment, Fault(flag, plan), view, versions(embedded=ground.embedded))


def _trained(plan: DemoPlan, folder: Path) -> tuple[Digits, list[TrainedModel]]:
    digits = load_digits(plan.seed)
    return digits, train(digits, folder, plan.seed)


@contextlib.asynccontextmanager
async def _ended(task: "asyncio.Task[Any]") -> AsyncIterator[None]:
    """Whatever happens, the task is not left running, and its error is not left unread."""
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


class _Show:
    """The part of the demo for which everything serves."""

    def __init__(
        self,
        plan: DemoPlan,
        settings: Settings,
        models: list[TrainedModel],
        broken: TrainedModel,
        scripted: Scripted,
        started_s: float,
    ) -> None:
        self._plan, self._settings, self._models, self._broken = plan, settings, models, broken
        self._scripted, self._started_s = scripted, started_s
        self._refs = [model.ref for model in models]

    async def run(self, deployment: Deployment, fault: Fault, view: View, used: dict[str, str]) -> Finished:
        connection, catalogue = deployment.connection, deployment.catalogue
        consumer = await open_answers(connection, catalogue)
        try:
            traffic = Traffic(self._scripted, self._refs, fault)
            setup_s = traffic.start_s - self._started_s
            view.begin(self._plan, self._models, self._broken.ref, traffic)
            watcher = Watcher(lambda: _ports(deployment), traffic, self._refs, view.sample)
            watching = asyncio.create_task(watcher.run())
            async with _ended(watching):
                await traffic.run(connection, catalogue, consumer)
        finally:
            await consumer.stop()
        view.stage("waiting for the last feedback and the last commits")
        last = await self._counted(watcher, traffic.counts.truths)
        behind = await wait_committed(connection, input_topics(catalogue, self._settings.models))
        view.stage("folding the logs again, to compare what was learned")
        verified = await verify(connection, catalogue, self._settings.router.horizon_s)
        return self._finished(traffic, watcher, last, behind, verified, setup_s, used)

    async def _counted(self, watcher: Watcher, sent: int) -> Sample:
        """A sample of when all feedback was counted, or of when that took too long."""
        end_s = time.monotonic() + COUNTED_WITHIN_S
        while True:
            last = await watcher.take()
            if sum(last.feedback.values()) >= sent or time.monotonic() > end_s:
                return last
            await asyncio.sleep(LOOK_S)

    def _finished(
        self,
        traffic: Traffic,
        watcher: Watcher,
        last: Sample,
        behind: dict[str, int],
        verified: Verification,
        setup_s: float,
        used: dict[str, str],
    ) -> Finished:
        plan, answers = self._plan, traffic.answers
        policies = policy_outcomes(answers, self._scripted.labels)
        models = model_outcomes(answers, self._scripted.labels)
        result = DemoResult(
            distinct_inputs=self._scripted.distinct_inputs,
            committed=not behind,
            uncommitted=behind,
            verified=verified_fields(verified),
            seconds=round(time.perf_counter() - self._started_s, 2),
            setup_seconds=round(setup_s, 2),
            versions=used,
            **traffic_fields(answers, plan),
            **metric_fields(last, traffic.counts.truths),
            **learning_fields(policies, models, self._broken.ref, plan),
        )
        story = Story(
            plan=plan,
            broken=self._broken.ref,
            policies=policies,
            models=models,
            samples=watcher.samples,
            sent_s=answers.ledger.due_times_s() - traffic.start_s,
            latencies_s=answers.ledger.latencies_s(),
        )
        return Finished(result=result, story=story, models=self._models)


def _ports(deployment: Deployment) -> list[int]:
    return [child.metrics_port for child in deployment.children.values() if child.metrics_port is not None]
