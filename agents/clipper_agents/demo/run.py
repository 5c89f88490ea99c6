"""The demo from its start to its result.

models --> settings --> Deployment (Kafka, router, hosts) --> load, sampled --> counted --> committed --> verified
"""

import asyncio
import contextlib
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clipper_agents.demo.answers import AnswerLog
from clipper_agents.demo.data import draw_traffic, load_digits
from clipper_agents.demo.fault import FaultSwitch
from clipper_agents.demo.manifests import demo_settings
from clipper_agents.demo.models import TrainedModel, best_of, train
from clipper_agents.demo.plan import POLICIES, DemoPlan, application_of
from clipper_agents.demo.result import DemoRecord, DemoResult, demo_result, used_versions
from clipper_agents.demo.samples import SAMPLE_EVERY_S, DemoSample, take_sample
from clipper_agents.demo.scoring import score
from clipper_agents.demo.view import DemoView
from clipper_agents.kafka.consumer_groups import unread
from clipper_agents.kafka.topics import delete_topics, existing_topics
from clipper_agents.replay.verify import verify
from clipper_agents.settings import Settings, load_settings
from clipper_agents.supervisor.deployment import Deployment
from clipper_agents.supervisor.supervised_process import Surroundings
from clipper_loadgen import Dataset, LoadPlan, LoadReport, run_load
from clipper_topics.manifests import ModelManifest

MAX_OPEN = 64
"""Queries without an answer: four times what an idle machine has at the default rate. On a busy one the demo then
sends more slowly, so that what it shows is how policies choose and not how deadlines are missed."""
TICK_S = 0.02
"""Queries that are due within 20 ms leave together, as when a page asks about all its pictures: fewer wake-ups."""
PATIENCE_S = 20.0
"""Without an answer, though queries wait, until the run is given up: longer than a router needs to restart."""
COUNTED_WITHIN_S = 15.0
"""For the last feedback to reach the router's counters."""
COMMITTED_WITHIN_S = 20.0
"""Offsets are committed a few seconds after their records were finished."""
LOOK_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoWorld:
    """A deployment, and what it serves.

    Attributes:
        deployment: Where the demo takes place.
        models: Every model.
        broken: The one that is to fail.
        log: Observes the load.
    """

    deployment: Deployment
    models: list[TrainedModel]
    broken: TrainedModel
    log: AnswerLog


async def run_demo(
    plan: DemoPlan, environ: Mapping[str, str], view: DemoView, echo: Callable[[str], None]
) -> tuple[DemoResult, DemoRecord]:
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
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(_temporary_folder()))
        overrides = await stack.enter_async_context(_own_topics(environ, folder))
        view.stage("training five models")
        digits = await asyncio.to_thread(load_digits, plan.seed)
        models = await asyncio.to_thread(train, digits, folder, plan.seed)
        broken, flag = best_of(models), folder / "broken"
        settings = demo_settings(plan, models, broken, flag, environ=environ, overrides=overrides)
        view.stage("starting Kafka, the router and five model hosts")
        deployment = await stack.enter_async_context(
            Deployment(settings, environ, log_level="info", surroundings=Surroundings(echo=echo))
        )
        log = AnswerLog([model.ref for model in models], plan.queries, FaultSwitch(flag, plan))
        world = DemoWorld(deployment=deployment, models=models, broken=broken, log=log)
        pictures = draw_traffic(digits, plan.queries, plan.seed)
        view.begin(plan, models, broken.ref)
        setup_s = time.perf_counter() - started_s
        record = await _record(plan, world, pictures, view)
        behind = await wait_committed(deployment, settings)
        view.stage("folding the logs again, to compare what was learned")
        result = demo_result(
            record,
            uncommitted=behind,
            verification=await verify(deployment.connection, deployment.catalogue, settings.router.horizon_s),
            seconds=time.perf_counter() - started_s,
            setup_seconds=setup_s,
            versions=used_versions(embedded=deployment.broker is not None),
        )
        return result, record


def load_plan(plan: DemoPlan, pictures: Dataset) -> LoadPlan:
    """The load of a demo: queries to the applications in turn, and the truth about each a while after its answer."""
    return LoadPlan(
        tuple(map(application_of, POLICIES)),
        mode="bounded",
        outstanding=MAX_OPEN,
        rate_per_s=plan.rate_per_s,
        duration_s=plan.queries / plan.rate_per_s,
        arrivals="constant",
        linger_s=TICK_S,
        dataset=pictures,
        repeat_ratio=plan.repeat_ratio,
        recent=plan.recent,
        feedback_delay_s=plan.feedback_delay_s,
        feedback_distribution="exponential",
        drain_s=PATIENCE_S,
        seed=plan.seed,
    )


async def _record(plan: DemoPlan, world: DemoWorld, pictures: Dataset, view: DemoView) -> DemoRecord:
    """Everything from the first query to the last feedback."""
    deployment, log = world.deployment, world.log
    samples: list[DemoSample] = []
    sampling = asyncio.create_task(_sample(world, samples, view))
    try:
        load = await run_load(load_plan(plan, pictures), deployment.connection, deployment.catalogue, observer=log)
    finally:
        sampling.cancel()
        await asyncio.wait({sampling})
    view.stage("waiting for the last feedback and the last commits")
    samples.append(await _last_sample(world, load))
    run = await log.wait_begun()
    ledger, labels = run.ledger, run.labels
    assert labels is not None
    return DemoRecord(
        plan=plan,
        models=world.models,
        load=load,
        scores=score(log, labels, plan, world.broken.ref),
        samples=samples,
        sent_s=ledger.due_times_s() - run.start_s,
        latencies_s=ledger.latencies_s(),
    )


async def _sample(world: DemoWorld, samples: list[DemoSample], view: DemoView) -> None:
    run = await world.log.wait_begun()
    while True:
        samples.append(await take_sample(world.deployment, run, world.log.models))
        view.sample(samples[-1])
        await asyncio.sleep(SAMPLE_EVERY_S)


async def _last_sample(world: DemoWorld, load: LoadReport) -> DemoSample:
    """A sample of when all feedback was counted, or of when that took too long."""
    run, end_s = await world.log.wait_begun(), time.monotonic() + COUNTED_WITHIN_S
    while True:
        last = await take_sample(world.deployment, run, world.log.models)
        if last.learned >= load.feedback_sent or time.monotonic() > end_s:
            return last
        await asyncio.sleep(LOOK_S)


async def wait_committed(deployment: Deployment, settings: Settings) -> dict[str, int]:
    """Wait until each worker's group has committed the ends of its topics; the records that are not, by topic."""
    catalogue, end_s = deployment.catalogue, time.monotonic() + COMMITTED_WITHIN_S
    groups = dict.fromkeys((catalogue.queries, catalogue.feedback, catalogue.outputs), catalogue.router_group)
    groups |= {catalogue.requests(*_name(model)): catalogue.host_group(*_name(model)) for model in settings.models}
    while True:
        counts = {topic: await unread(deployment.connection, group, topic) for topic, group in groups.items()}
        behind = {topic: count for topic, count in counts.items() if count}
        if not behind or time.monotonic() > end_s:
            return behind
        await asyncio.sleep(LOOK_S)


def _name(model: ModelManifest) -> tuple[str, str]:
    return model.name, model.version


def _temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="clipper-demo-", ignore_cleanup_errors=True)


@contextlib.asynccontextmanager
async def _own_topics(environ: Mapping[str, str], folder: Path) -> AsyncIterator[dict[str, str]]:
    """Settings for a deployment that leaves nothing behind.

    Those of a given Kafka name topics with a prefix of their own, which are deleted at the end; an embedded Kafka goes
    with its topics.
    """
    settings = load_settings(None, environ)
    if settings.kafka.bootstrap is None:
        yield {}
        return
    connection, prefix = settings.connection(environ), f"demo-{secrets.token_hex(4)}"
    try:
        yield {
            "kafka.prefix": prefix,
            "router.data_dir": str(folder / "router"),
            "host.data_dir": str(folder / "host"),
        }
    finally:
        await delete_topics(connection, list(await existing_topics(connection, prefix)))
