"""From a plan to bytes: all that can be done before the first query is sent."""

import asyncio
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer

from clipper_loadgen.datasets import Dataset, random_dataset
from clipper_loadgen.plan import CONTENT_TYPES, LoadPlan
from clipper_loadgen.schedule import arrival_times, draw_delays
from clipper_loadgen.script import Script, write_script
from clipper_loadgen.workload import IntArray, Workload, draw_workload, fresh_count, repeated_from
from clipper_stream.client.kafka import assigned_consumer
from clipper_stream.errors import InvalidSetting, UnknownName
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import application_key
from clipper_topics.feedback import Feedback
from clipper_topics.manifests import ApplicationManifest

FeedbackRecord = tuple[int, bytes, bytes]
"""Partition, key and value."""
APPLICATION_PREFIX = application_key("")
MANIFEST_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedLoad:
    """A run that only has to be carried out.

    Attributes:
        script: Every query.
        times_s: Intended send times from the start of the run; NaN in saturation mode, where there are none.
        first: Index of the first query after the warm-up.
        distinct_inputs: Number of different rows asked about.
        delays_s: Feedback delay of each query; None for a run without feedback.
        feedback_of: The feedback record of a query.
        labels: What the feedback of each query says; None where the truth is not known.
    """

    script: Script
    times_s: list[float]
    first: int
    distinct_inputs: int
    delays_s: list[float] | None
    feedback_of: Callable[[int], FeedbackRecord]
    labels: list[Any] | None


async def prepare_load(
    plan: LoadPlan, connection: KafkaConnection, catalogue: Catalogue, partitions: int
) -> PreparedLoad:
    """Draw the workload and encode it; a plan without a data set is given rows by the application's manifest.

    Args:
        plan: The plan.
        connection: Where the manifest is read.
        catalogue: The topics of the deployment.
        partitions: Number of partitions of the queries topic.

    Raises:
        UnknownName: no such application is registered.
        InvalidSetting: the control topic cannot be read.
    """
    times_s = intended_times(plan)
    origin = repeated_from(len(times_s), plan.repeat_ratio, plan.recent, np.random.default_rng([plan.seed, 4]))
    dataset = plan.dataset
    if dataset is None:
        manifest = await read_application(connection, catalogue, plan.applications[0])
        dataset = random_dataset(manifest.input, fresh_count(origin), plan.seed)
    return await asyncio.to_thread(encode_load, plan, dataset, times_s, origin, partitions)


def intended_times(plan: LoadPlan) -> list[float]:
    """Intended send times of a plan's queries; one NaN a query in saturation mode."""
    if plan.mode == "saturation":
        return [math.nan] * plan.queries
    times: list[float] = arrival_times(
        plan.arrivals, plan.rate_per_s, plan.warmup_s + plan.duration_s, plan.seed
    ).tolist()
    return times


def encode_load(
    plan: LoadPlan, dataset: Dataset, times_s: list[float], origin: IntArray, partitions: int
) -> PreparedLoad:
    """The run of a plan over a data set; `origin` is what `repeated_from` drew."""
    workload = draw_workload(
        dataset,
        origin,
        contexts=plan.contexts,
        zipf_exponent=plan.zipf_exponent,
        noise_ratio=plan.label_noise_ratio,
        seed=plan.seed,
    )
    script = write_script(
        workload,
        dataset,
        applications=plan.applications,
        encoding=plan.encoding,
        partitions=partitions,
        run=secrets.token_hex(4),
    )
    return PreparedLoad(
        script=script,
        times_s=times_s,
        first=sum(time_s < plan.warmup_s for time_s in times_s),
        distinct_inputs=len(set(workload.rows)),
        delays_s=_delays(plan, len(times_s)),
        feedback_of=_feedback_of(plan, script, workload),
        labels=workload.labels,
    )


async def read_application(connection: KafkaConnection, catalogue: Catalogue, name: str) -> ApplicationManifest:
    """The newest manifest of an application.

    Raises:
        UnknownName: no such application is registered.
        InvalidSetting: the control topic does not exist, or cannot be read within ten seconds.
        UndecodableRecord: the manifest cannot be decoded.
    """
    consumer = await assigned_consumer(connection, catalogue.control, at_end=False, isolation_level="read_committed")
    try:
        found = await asyncio.wait_for(_manifests(consumer), MANIFEST_TIMEOUT_S)
    except TimeoutError as error:
        raise InvalidSetting(f"{catalogue.control} could not be read within {MANIFEST_TIMEOUT_S:.0f} s") from error
    finally:
        await consumer.stop()
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise UnknownName(f"no application {name!r} is registered; registered: {known}")
    return codec.applications.decode(found[name])


async def _manifests(consumer: AIOKafkaConsumer) -> dict[str, bytes]:
    """Values of the application manifests by name; an empty value removes one."""
    ends = await consumer.end_offsets(consumer.assignment())
    found: dict[str, bytes] = {}
    while any([await consumer.position(partition) < end for partition, end in ends.items()]):
        for records in (await consumer.getmany(timeout_ms=100)).values():
            for record in records:
                key = record.key or b""
                if key.startswith(APPLICATION_PREFIX):
                    found[key.removeprefix(APPLICATION_PREFIX).decode("utf-8", "replace")] = record.value or b""
    return {name: value for name, value in found.items() if value}


def _delays(plan: LoadPlan, count: int) -> list[float] | None:
    if plan.feedback_delay_s is None:
        return None
    delays: list[float] = draw_delays(plan.feedback_distribution, plan.feedback_delay_s, count, plan.seed).tolist()
    return delays


def _feedback_of(plan: LoadPlan, script: Script, workload: Workload) -> Callable[[int], FeedbackRecord]:
    """What is said about a query: its label, or a loss where no label is known."""
    kind, labels, applications = CONTENT_TYPES[plan.encoding], workload.labels, plan.applications
    rng = np.random.default_rng([plan.seed, 8])
    losses = (rng.random(len(workload.rows)) < plan.label_noise_ratio).astype(float).tolist()

    def record(query: int) -> FeedbackRecord:
        truth = Feedback(query_id=script.query_id(query), application=applications[query % len(applications)])
        if labels is None:
            truth.loss = losses[query]
        else:
            truth.label = labels[query]
        return script.partitions[query], script.keys[query], codec.feedback.encode(truth, kind)

    return record
