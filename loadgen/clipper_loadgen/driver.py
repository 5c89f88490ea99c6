"""One run: draw the workload, send, read, report.

plan ──> workload ──> script ──> [gate] ──> queries topic
                                   ^              │
      pacer (rate) or answers (saturation)   the pipeline
                                                  │
report <── ledger <── answers <────────── predictions topic
                          └──> delayed feedback ──> feedback topic
"""

import asyncio
import time
from contextlib import nullcontext

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from clipper_loadgen.answers import assigned_consumer, read_answers
from clipper_loadgen.applications import read_application
from clipper_loadgen.datasets import random_dataset
from clipper_loadgen.pacing import Pacer
from clipper_loadgen.plan import LoadPlan
from clipper_loadgen.preparation import Prepared, draw_origin, intended_times, prepare
from clipper_loadgen.producing import BatchOutlet, frozen_garbage, open_outlet
from clipper_loadgen.progress import ProgressSink
from clipper_loadgen.report import LoadReport
from clipper_loadgen.running import Run
from clipper_loadgen.sending import send_released
from clipper_loadgen.workloads import fresh_count
from clipper_stream.client.access import explained
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

HEAD_START_S = 0.1
"""Between the making of the schedule and its first query, so that the pacer is waiting when it is due."""


async def run_load(
    plan: LoadPlan, connection: KafkaConnection, catalogue: Catalogue, progress: ProgressSink | None = None
) -> LoadReport:
    """Put the load on the pipeline and report what became of it.

    Args:
        plan: What to send.
        connection: Where Kafka is.
        catalogue: The topics of the deployment.
        progress: Told a few times a second how far the run is.

    Returns:
        The report. A run whose answers stop coming ends `plan.drain_s` after the last one, and is reported as it is.

    Raises:
        InvalidSetting: the topics do not exist.
        UnknownName: the plan has no data set, and no such application is registered.
        BrokerUnavailable: no broker answers.
        AccessRefused: Kafka does not let us in, or not read or write a topic.
    """
    try:
        return await _run_load(plan, connection, catalogue, progress)
    except KafkaError as error:
        raise await explained(connection, "cannot put load on it", error) from error


async def _run_load(
    plan: LoadPlan, connection: KafkaConnection, catalogue: Catalogue, progress: ProgressSink | None
) -> LoadReport:
    times_s = intended_times(plan)
    origin = draw_origin(plan, len(times_s))
    dataset = plan.dataset
    if dataset is None:
        manifest = await read_application(connection, catalogue, plan.application)
        dataset = random_dataset(manifest.input, fresh_count(origin), plan.seed)
    consumer = await assigned_consumer(connection, catalogue.predictions, at_end=True)
    try:
        partitions = len(consumer.assignment())  # predictions and queries are co-partitioned
        prepared = await asyncio.to_thread(prepare, plan, dataset, times_s, origin, partitions)
        return await _carry_out(plan, prepared, consumer, (connection, catalogue), progress)
    finally:
        await consumer.stop()


async def _carry_out(
    plan: LoadPlan,
    prepared: Prepared,
    consumer: AIOKafkaConsumer,
    deployment: tuple[KafkaConnection, Catalogue],
    progress: ProgressSink | None,
) -> LoadReport:
    connection, catalogue = deployment
    async with (
        open_outlet(connection, catalogue.queries, plan.encoding) as queries,
        open_outlet(connection, catalogue.feedback, plan.encoding) as feedback,
    ):
        with frozen_garbage():
            start_s = time.perf_counter() + HEAD_START_S
            run = Run(plan, prepared, start_s, feedback, time.perf_counter)
            cpu_s = time.process_time()
            with _gate_keeper(plan, run):
                await _together(run, consumer, queries, progress)
            run.spent(time.process_time() - cpu_s, time.perf_counter() - start_s)
        return run.report(queries, feedback)


async def _together(run: Run, consumer: AIOKafkaConsumer, queries: BatchOutlet, progress: ProgressSink | None) -> None:
    """Sender, reader and feedback at once, until nothing more is to be expected."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(read_answers(consumer, run.clock, run.on_answers)),
                group.create_task(send_released(run.script, run.gate, queries, run.ledger, run.clock)),
            ]
            if run.delayed is not None:
                tasks.append(group.create_task(run.delayed.run()))
            await run.settled(progress)
            for task in tasks:
                task.cancel()
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed


def _gate_keeper(plan: LoadPlan, run: Run) -> "Pacer | nullcontext[None]":
    """Who opens the gate: the pacer's thread, or the answers themselves."""
    if plan.mode == "saturation":
        run.gate.release(plan.outstanding)
        return nullcontext()
    loop = asyncio.get_running_loop()
    return Pacer(
        run.due_s, lambda released: loop.call_soon_threadsafe(run.gate.release, released), tick_s=plan.linger_s
    )
