"""The demo from its start to its result.

models --> settings --> Deployment (Kafka, router, hosts) --> load, recorded --> counted --> committed --> verified
"""

import asyncio
import contextlib
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from clipper_agents.demo.data import draw_traffic, load_digits
from clipper_agents.demo.models import PICTURE, TrainedModel, best_of, train
from clipper_agents.demo.plan import FAILS_AT, OBJECTIVE_MS, POLICIES, DemoPlan, application_of
from clipper_agents.demo.result import DemoResult, demo_result
from clipper_agents.demo.run_recorder import DemoRecorder
from clipper_agents.demo.view import DemoView
from clipper_agents.kafka.consumer_groups import unread
from clipper_agents.kafka.topics import delete_topics, existing_topics
from clipper_agents.observability.logging import LogOptions
from clipper_agents.replay.log_ranges import open_logs
from clipper_agents.replay.verify import verify
from clipper_agents.settings import BrokerSection, GatewaySection, Settings, load_settings
from clipper_agents.supervisor.deployment import Deployment
from clipper_agents.supervisor.supervised_process import ProcessEnvironment
from clipper_loadgen import Dataset, LoadPlan, run_load
from clipper_loadgen.run import LoadRun
from clipper_loadgen.terminal import progress_bar
from clipper_topics.manifests import ApplicationManifest, PolicySpec

MAX_OPEN = 32
"""Queries without an answer: twice what an idle machine has at the default rate. On a busy one the demo then sends more
slowly, so that it shows how policies choose and not how deadlines are missed: 32 are in time down to 64 a second."""
TICK_S = 0.02
"""Queries that are due within 20 ms leave together, as when a page asks about all its pictures: fewer wake-ups."""
PATIENCE_S = 20.0
"""Without an answer, though queries wait, until the run is given up: longer than a router needs to restart."""
COUNTED_WITHIN_S = 15.0
"""For the last feedback to reach the router's counters."""
COMMITTED_WITHIN_S = 20.0
"""Offsets are committed a few seconds after their records were finished."""
LOOK_S = 0.25
NO_DIGIT = -1
"""The default output: wrong for every picture, so that a default counts as an error."""


async def run_demo(
    plan: DemoPlan, environ: Mapping[str, str], view: DemoView, echo: Callable[[str], None]
) -> tuple[DemoResult, DemoRecorder]:
    """Run it; `view` is told what happens, `echo` gets every line that the processes print.

    Raises:
        SetupError: no Kafka, a wrong setting, or a process that cannot start.
    """
    started_s = time.perf_counter()
    async with contextlib.AsyncExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="clipper-demo-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(temporary))
        flag = folder / "broken"
        view.stage("training five models")
        digits = await asyncio.to_thread(load_digits, plan.seed)
        models = await asyncio.to_thread(train, digits, folder, plan.seed)
        overrides = await stack.enter_async_context(_own_topics(environ, folder))
        settings = demo_settings(plan, models, flag, environ, overrides)
        view.stage("starting Kafka, the router and five model hosts")
        process_environment = ProcessEnvironment(echo=echo)
        deployment = await stack.enter_async_context(
            Deployment(settings, environ, logs=LogOptions("info"), process_environment=process_environment)
        )
        errors = ", ".join(f"{model.name} {model.validation_error:.1%}" for model in models)
        fails = f"{best_of(models).ref} will fail at {FAILS_AT:.0%} of the queries"
        view.stage(f"validation errors: {errors}; {fails}")
        options = f"--bootstrap {deployment.connection.bootstrap} --set kafka.prefix={deployment.catalogue.prefix}"
        view.stage(f"all else there is to see: clipper-stream watch {options}")
        if deployment.console:
            view.console(deployment.console)
        setup_s = time.perf_counter() - started_s
        recorder = DemoRecorder(plan, models, flag, lambda: _metrics_ports(deployment), view.sample)
        load = load_plan(plan, draw_traffic(digits, plan.queries, plan.seed))
        with progress_bar("demo") as progress:

            async def follow(run: LoadRun) -> None:
                await asyncio.gather(progress(run), recorder.follow(run))

            report = await run_load(load, deployment.connection, deployment.catalogue, follow, recorder)
        view.stage("waiting for the last feedback and the last commits")
        await _wait_counted(recorder, report.feedback_sent)
        uncommitted = await wait_committed(deployment)
        view.stage("folding the logs again, to compare what was learned")
        logs = await open_logs(deployment.connection, deployment.catalogue)
        verification = await verify(logs, deployment.catalogue, settings.router.horizon_s)
        result = demo_result(
            recorder,
            report,
            uncommitted=uncommitted,
            verification=verification,
            seconds=time.perf_counter() - started_s,
            setup_seconds=setup_s,
            embedded=deployment.broker is not None,
        )
        return result, recorder


def demo_settings(
    plan: DemoPlan, models: Sequence[TrainedModel], flag: Path, environ: Mapping[str, str], overrides: Mapping[str, str]
) -> Settings:
    """The settings of the whole deployment, in which the best of the models breaks when the flag is there."""
    best = best_of(models)
    applications = [
        ApplicationManifest(
            name=application_of(policy),
            input=PICTURE,
            models=[model.ref for model in models],
            policy=PolicySpec(name=policy, parameters=dict(parameters)),
            objective_ms=OBJECTIVE_MS,
            default_output=NO_DIGIT,
            seed=plan.seed,
        )
        for policy, parameters in POLICIES.items()
    ]
    loaded = load_settings(None, environ, overrides)
    gateway = GatewaySection(
        enabled=loaded.gateway.enabled, console_dir=loaded.gateway.console_dir, port=0, grpc_port=0
    )
    return msgspec.structs.replace(
        loaded,
        broker=BrokerSection(),
        gateway=gateway,
        applications=applications,
        models=[model.manifest(flag if model is best else None) for model in models],
    )


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
        repeat_ratio=0.1,
        feedback_delay_s=0.075,
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


async def _wait_counted(recorder: DemoRecorder, feedback_sent: int) -> None:
    """Take a sample of when all feedback was counted, or of when that took too long."""
    end_s = time.monotonic() + COUNTED_WITHIN_S
    while sum((await recorder.sample()).feedback.values()) < feedback_sent and time.monotonic() < end_s:
        recorder.samples.pop()
        await asyncio.sleep(LOOK_S)


def _metrics_ports(deployment: Deployment) -> list[int]:
    return [child.metrics_port for child in deployment.supervisor.children.values() if child.metrics_port is not None]


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
        keys = {"router": "router.data_dir", "host": "host.data_dir", "gateway": "gateway.console_dir"}
        folders = {key: str(folder / name) for name, key in keys.items()}
        yield {"kafka.prefix": prefix, **folders}
    finally:
        await delete_topics(connection, list(await existing_topics(connection, prefix)))
