"""The demo from its start to its result.

models --> settings --> Deployment (Kafka, router, hosts) --> its rate measured --> load, recorded --> counted and
committed --> verified
"""

import asyncio
import contextlib
import secrets
import tempfile
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

import msgspec
import numpy as np

from clipper_agents.demo.data import Digits, draw_traffic, load_digits
from clipper_agents.demo.models import PICTURE, TrainedModel, best_of, train
from clipper_agents.demo.scenario import (
    FAILED,
    PHASES,
    POLICIES,
    DemoRecorder,
    DemoResult,
    application_of,
    demo_load,
    pace_of,
    phase_of,
)
from clipper_agents.kafka.topics import delete_topics, existing_topics
from clipper_agents.observability.logging import LogOptions
from clipper_agents.replay.verify import verify
from clipper_agents.settings import Settings, load_settings
from clipper_agents.settings.sections import BrokerSection
from clipper_agents.status.collect import read_status
from clipper_agents.supervisor.deployment import Deployment
from clipper_agents.supervisor.supervisor import ProcessEnvironment
from clipper_loadgen import run_load
from clipper_loadgen.run import LoadRun
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ApplicationManifest, PolicySpec

OBJECTIVE_MS = 1000
"""Of both applications: generous, since seven processes share the machine with whatever else runs there, and a late
answer would be an error that tells nothing about the models."""
NO_DIGIT = -1
"""The default output: wrong for every picture, so that a default counts as an error."""
LINE_EVERY_S = 5.0
MEASURED_QUERIES = 300
"""Of each of two runs that measure the machine: one second's worth, on a slow machine ten."""
RECENT = 500
"""Queries that the percentiles of a line are about: two seconds' worth."""
SETTLED_WITHIN_S = 30.0
"""For the last offsets to be committed, which takes a few seconds."""


async def run_demo(
    queries: int | None,
    most_per_s: float,
    seed: int,
    environ: Mapping[str, str],
    say: Callable[[str], None],
    log: IO[str],
    *,
    opens_console: bool = False,
) -> DemoResult:
    """Run it; `say` is told what happens, what the processes print goes to `log`. Other arguments as of `pace_of`."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory("-demo", "clipper-", ignore_cleanup_errors=True)))
        say("training five models")
        digits = await asyncio.to_thread(load_digits, seed)
        models = await asyncio.to_thread(train, digits, folder, seed)
        broken, flag = best_of(models).ref, folder / "broken"
        errors = ", ".join(f"{model.name} {model.validation_error:.1%}" for model in models)
        say(f"validation errors: {errors}; {broken} will fail at {PHASES[FAILED]:.0%} of the queries")
        overrides = await stack.enter_async_context(_own_topics(environ, folder))
        settings = demo_settings(models, flag, seed, environ, overrides)
        say("starting Kafka, the router and five model hosts")
        processes = ProcessEnvironment(echo=lambda line: print(line, file=log))
        deployment = Deployment(settings, environ, logs=LogOptions("info"), process_environment=processes)
        await stack.enter_async_context(deployment)
        connection, catalogue = deployment.connection, deployment.catalogue
        options = f"--bootstrap {connection.bootstrap} --set kafka.prefix={catalogue.prefix}"
        say(f"all else there is to see: clipper-stream status --watch {options}")
        if console := deployment.url("console"):
            say(f"console: {console}")
            if opens_console:  # in a thread, which may wait for the browser
                threading.Thread(target=webbrowser.open, args=[console], daemon=True).start()
        say("measuring what this machine answers")
        pace = pace_of(await _measured_per_s(digits, seed, connection, catalogue), most_per_s, queries)
        say(
            f"this machine answers {pace.measured_per_s:,.0f} queries a second: "
            f"{pace.queries:,} are sent, {pace.rate_per_s:,.0f} a second"
        )
        recorder = DemoRecorder(pace.queries, [model.ref for model in models], flag)

        async def follow(run: LoadRun) -> None:
            recorder.labels = run.script.labels or ()
            while True:
                await asyncio.sleep(LINE_EVERY_S)
                say(progress_line(run))

        load = demo_load(draw_traffic(digits, pace.queries, seed), pace.rate_per_s, seed)
        report = await run_load(load, connection, catalogue, follow, recorder)
        say("waiting for the last commits")
        settled = await _settled(connection, catalogue)
        say("folding the logs again, to compare what was learned")
        verification = await verify(connection, catalogue, settings.router.horizon_s)
    return DemoResult(broken, recorder.errors, pace, report, *settled, verification)


async def _measured_per_s(digits: Digits, seed: int, connection: KafkaConnection, catalogue: Catalogue) -> float:
    """Queries a second that models answer in time, in the better of two runs: in the first all is warmed up."""
    found = []
    for number in (1, 2):
        load = demo_load(draw_traffic(digits, MEASURED_QUERIES, seed + number), 1.0, seed)
        most = replace(load, mode="saturation", queries=MEASURED_QUERIES, feedback_delay_s=None)
        report = await run_load(most, connection, catalogue)
        found.append((report.throughput_per_s or 0.0) * (1.0 - report.default_ratio))
    return max(found)


def demo_settings(
    models: Sequence[TrainedModel], flag: Path, seed: int, environ: Mapping[str, str], overrides: Mapping[str, str]
) -> Settings:
    """The settings of the whole deployment, in which the best of the models breaks when the flag is there."""
    best = best_of(models)
    applications = [
        ApplicationManifest(
            name=application_of(policy),
            input=PICTURE,
            models=[model.ref for model in models],
            policy=PolicySpec(name=policy, parameters=parameters),
            objective_ms=OBJECTIVE_MS,
            default_output=NO_DIGIT,
            seed=seed,
        )
        for policy, parameters in POLICIES.items()
    ]
    return msgspec.structs.replace(
        load_settings(None, environ, {"gateway.port": "0", "gateway.grpc_port": "0", **overrides}),
        broker=BrokerSection(),
        applications=applications,
        models=[model.manifest(flag if model is best else None) for model in models],
    )


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
        folders = {key: str(folder / key) for key in ("router.data_dir", "host.data_dir", "gateway.console_dir")}
        yield {"kafka.prefix": prefix, **folders}
    finally:
        await delete_topics(connection, list(await existing_topics(connection, prefix)))


def progress_line(run: LoadRun) -> str:
    """How far a run is, how late its latest answers were, and how many were defaults."""
    ledger = run.ledger
    latencies_s = ledger.latencies_s(max(0, ledger.sent_count - RECENT))
    answered_s = latencies_s[np.isfinite(latencies_s)]
    p50_s, p99_s = np.percentile(answered_s, (50, 99)) if len(answered_s) else (np.nan, np.nan)
    return (
        f"best model {phase_of(ledger.sent_count - 1, len(ledger))}: {ledger.answered_count:,}/{len(ledger):,} "
        f"answered, latest p50={1000 * p50_s:.0f}ms p99={1000 * p99_s:.0f}ms, defaults={len(ledger.reasons):,}"
    )


async def _settled(connection: KafkaConnection, catalogue: Catalogue) -> tuple[int, dict[str, int]]:
    """Wait until all input is committed; how many records were refused, and what is not committed by topic."""
    end_s = time.monotonic() + SETTLED_WITHIN_S
    while True:
        cluster = (await read_status(connection, catalogue)).cluster
        assert cluster is not None
        behind = {topic: lag for group in cluster.groups for topic, lag in group.lag.items() if lag}
        if not behind or time.monotonic() > end_s:
            return cluster.dead_letters, behind
