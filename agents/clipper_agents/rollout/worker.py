"""The rollout controller as a process: `run` until SIGTERM.

start --> control topic read --> `ready` line --> SIGTERM --> end
             | rights: SetupError                    | a defect, a right taken away: the process ends, and says why
"""

import asyncio
import logging

import uvloop

from clipper_agents import exits
from clipper_agents.kafka import aiokafka_patches
from clipper_agents.kafka.errors import TopicMadeAnew
from clipper_agents.observability.metrics import StewardMetrics
from clipper_agents.rollout.app import RolloutController
from clipper_agents.rollout.decisions import ControlChanges
from clipper_agents.settings.load import WorkerSettings
from clipper_agents.settings.sections import StewardSection
from clipper_agents.streaming.reachability import watch_kafka
from clipper_stream.client.access import RIGHTS, refused_right

logger = logging.getLogger(__name__)


def run(settings: WorkerSettings[StewardSection], metrics: StewardMetrics, port: int) -> None:
    """Compare and decide until SIGTERM or SIGINT; prints `ready role=steward instance=... metrics=PORT` first.

    Its metrics and probes are served on `port` already.
    """
    aiokafka_patches.install()
    metrics.health.waits_for = "the control topic is not read yet"
    ready = f"ready role=steward instance={settings.instance} metrics={port}"
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(settings, metrics, ready))
    except RIGHTS as error:
        raise refused_right(settings.kafka, error) from error
    except TopicMadeAnew as error:
        logger.error("worker cannot go on instance=%s: %s", settings.instance, error)  # noqa: TRY400
        raise SystemExit(exits.CRASHED) from error
    except Exception as error:
        logger.exception("worker cannot go on instance=%s", settings.instance)
        raise SystemExit(exits.CRASHED) from error


async def _run(settings: WorkerSettings[StewardSection], metrics: StewardMetrics, ready: str) -> None:
    told = asyncio.Event()

    def end() -> None:
        metrics.health.is_draining = True
        told.set()

    def serve() -> None:
        metrics.health.serves(tuple)
        print(ready, flush=True)  # noqa: T201 - a supervisor waits for this line

    exits.end_on_signals(end, lambda: "the connections to Kafka are closed")
    metrics.health.watch_loop()
    topics = settings.catalogue
    watched = (topics.control, topics.predictions, topics.audits, topics.feedback)
    process = RolloutController(settings, ControlChanges(settings.kafka, topics), metrics)
    works = (told.wait(), watch_kafka(settings.kafka, metrics.set_broker_reachable, watched), process.run(serve))
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
