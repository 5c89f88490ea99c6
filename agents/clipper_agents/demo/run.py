"""The demo from its start to its result.

models --> settings --> Deployment (Kafka, router, hosts) --> load, sampled --> counted --> committed --> verified
"""

import asyncio
import contextlib
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from clipper_agents.demo.answers import AnswerLog
from clipper_agents.demo.data import draw_traffic, load_digits
from clipper_agents.demo.error_rates import score
from clipper_agents.demo.fault import FaultSwitch
from clipper_agents.demo.manifests import demo_settings
from clipper_agents.demo.models import best_of, train
from clipper_agents.demo.plan import POLICIES, DemoPlan, application_of
from clipper_agents.demo.result import DemoRecord, DemoResult, demo_result, used_versions
from clipper_agents.demo.samples import DemoSample, take_sample
from clipper_agents.demo.view import DemoView
from clipper_agents.kafka.consumer_groups import unread
from clipper_agents.kafka.topics import delete_topics, existing_topics
from clipper_agents.replay.verify import verify
from clipper_agents.settings import load_settings
from clipper_agents.supervisor.deployment import Deployment
from clipper_agents.supervisor.supervised_process import ProcessEnvironment
from clipper_loadgen import Dataset, LoadPlan, run_load

MAX_OPEN = 32
"""Queries without an answer: twice what an idle machine has at the default rate. On a busy one the demo then sends more
slowly, so that it shows how policies choose and not how deadlines are missed: 32 are in time down to 64 a second."""
TICK_S = 0.02
"""Queries that are due within 20 ms leave together, as when a page asks about all its pictures: fewer wake-ups."""
PATIENCE_S = 20.0
"""Without an answer, though queries wait, until the run is given up: longer than a router needs to restart."""
SAMPLE_EVERY_S = 1.0
"""As often as routers report their weights."""
COUNTED_WITHIN_S = 15.0
"""For the last feedback to reach the router's counters."""
COMMITTED_WITHIN_S = 20.0
"""Offsets are committed a few seconds after their records were finished."""
LOOK_S = 0.25


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
        temporary = tempfile.TemporaryDirectory(prefix="clipper-demo-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(temporary))
        view.stage("training five models")
        digits = await asyncio.to_thread(load_digits, plan.seed)
        models = await asyncio.to_thread(train, digits, folder, plan.seed)
        overrides = await stack.enter_async_context(_own_topics(environ, folder))
        settings = demo_settings(plan, models, folder / "broken", environ, overrides)
        view.stage("starting Kafka, the router and five model hosts")
        process_environment = ProcessEnvironment(echo=echo)
        deployment = await stack.enter_async_context(
            Deployment(settings, environ, log_level="info", process_environment=process_environment)
        )
        view.begin(plan, models, best_of(models).ref)
        setup_s = time.perf_counter() - started_s
        log = AnswerLog([model.ref for model in models], plan.queries, FaultSwitch(folder / "broken", plan))
        samples: list[DemoSample] = []
        sampling = asyncio.create_task(_sample(log, deployment, samples, view))
        try:
            load = load_plan(plan, draw_traffic(digits, plan.queries, plan.seed))
            report = await run_load(load, deployment.connection, deployment.catalogue, observer=log)
        finally:
            sampling.cancel()
            await asyncio.wait({sampling})
        view.stage("waiting for the last feedback and the last commits")
        samples.append(await _last_sample(log, deployment, report.feedback_sent))
        behind = await wait_committed(deployment)
        view.stage("folding the logs again, to compare what was learned")
        verification = await verify(deployment.connection, deployment.catalogue, settings.router.horizon_s)
        run = await log.wait_begun()
        record = DemoRecord(
            plan=plan,
            models=models,
            load=report,
            scores=score(log, run.labels or [], plan, best_of(models).ref),
            samples=samples,
            sent_s=run.ledger.due_times_s() - run.start_s,
            latencies_s=run.ledger.latencies_s(),
        )
        result = demo_result(
            record,
            uncommitted=behind,
            verification=verification,
            seconds=time.perf_counter() - started_s,
            setup_seconds=setup_s,
            versions=used_versions(embedded=deployment.broker is not None),
        )
        return result, record


def load_plan(plan: DemoPlan, pictures: Dataset) -> LoadPlan:
    """The load of a demo: queries to the applications in turn, and the true digit of each a while after its answer."""
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


async def wait_committed(deployment: Deployment) -> dict[str, int]:
    """Wait until each worker's group has committed the ends of its topics; the records that are not, by topic."""
    catalogue, end_s = deployment.catalogue, time.monotonic() + COMMITTED_WITHIN_S
    groups = dict.fromkeys((catalogue.queries, catalogue.feedback, catalogue.outputs), catalogue.router_group)
    for model in deployment.settings.models:
        groups[catalogue.requests(model.name, model.version)] = catalogue.host_group(model.name, model.version)
    while True:
        counts = {topic: await unread(deployment.connection, group, topic) for topic, group in groups.items()}
        behind = {topic: count for topic, count in counts.items() if count}
        if not behind or time.monotonic() > end_s:
            return behind
        await asyncio.sleep(LOOK_S)


async def _sample(log: AnswerLog, deployment: Deployment, samples: list[DemoSample], view: DemoView) -> None:
    run = await log.wait_begun()
    while True:
        samples.append(await take_sample(run, _ports(deployment)))
        view.sample(samples[-1])
        await asyncio.sleep(SAMPLE_EVERY_S)


async def _last_sample(log: AnswerLog, deployment: Deployment, feedback_sent: int) -> DemoSample:
    """A sample of when all feedback was counted, or of when that took too long."""
    run, end_s = await log.wait_begun(), time.monotonic() + COUNTED_WITHIN_S
    while True:
        last = await take_sample(run, _ports(deployment))
        if last.learned >= feedback_sent or time.monotonic() > end_s:
            return last
        await asyncio.sleep(LOOK_S)


def _ports(deployment: Deployment) -> list[int]:
    return [child.metrics_port for child in deployment.children.values() if child.metrics_port is not None]


@contextlib.asynccontextmanager
async def _own_topics(environ: Mapping[str, str], folder: Path) -> AsyncIterator[dict[str, str]]:
    """Settings with which a deployment leaves nothing behind.

    On a given Kafka the topics have a prefix of their own and are deleted at the end; an embedded Kafka goes with its
    topics.
    """
    settings = load_settings(None, environ)
    if settings.kafka.bootstrap is None:
        yield {}
        return
    connection, prefix = settings.connection(environ), f"demo-{secrets.token_hex(4)}"
    try:
        folders = {f"{section}.data_dir": str(folder / section) for section in ("router", "host")}
        yield {"kafka.prefix": prefix, **folders}
    finally:
        await delete_topics(connection, list(await existing_topics(connection, prefix)))
