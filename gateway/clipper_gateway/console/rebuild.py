"""Fills the gaps of a history from what the topics still have, the newest times first.

Rules of this file:
- A point that is there is never replaced; one that breaks off has done no harm, and the next one goes on.
- In all it takes a tenth of a core, and between two applications it lets the gateway's calls run.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from clipper_agents.kafka.reader import open_reader
from clipper_agents.kafka.retry import STATUS
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.figures import point_of
from clipper_agents.status.past import PastReader
from clipper_gateway.console.history import RINGS, Ring, SeriesHistory
from clipper_stream.errors import ClipperError
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

logger = logging.getLogger(__name__)
Partitions = Iterable[TopicPartition]

PAUSE_RATIO = 9
"""Seconds of rest for each second of work."""


async def rebuild(
    history: SeriesHistory, kafka: KafkaConnection, catalogue: Catalogue, partitions: Partitions, facts: DeploymentView
) -> None:
    """Fill what is missing before now from these partitions; where they cannot be read, that is logged."""
    try:
        async with open_reader(kafka, isolation_level="read_committed", policy=STATUS) as reader:
            await fill(history, PastReader(reader, catalogue, partitions, facts), time.time())
    except (ClipperError, KafkaError, OSError, TimeoutError) as error:
        logger.warning("the history of the console keeps gaps: %s", error)


async def fill(history: SeriesHistory, past: PastReader, now_s: float, pause_ratio: float = PAUSE_RATIO) -> None:
    """Fill what is missing before now, with a pause of so many times what a step took.

    Raises:
        KafkaError: Kafka does not answer.
        TimeoutError: nothing comes.
    """
    await past.start()
    for ring, since_s in await asyncio.to_thread(lambda: [*gaps(history, int(now_s))]):
        began_s = time.process_time()
        builder = await past.between(since_s, since_s + ring.step_s)
        for name in sorted(builder.facts.declared.manifests.applications):
            await asyncio.to_thread(history.add, name, since_s, *point_of(builder, name, ring.step_s), ring)
        await asyncio.to_thread(history.add, "", since_s, {}, {}, ring)
        await asyncio.sleep(pause_ratio * (time.process_time() - began_s))


def gaps(history: SeriesHistory, now_s: int) -> Iterator[tuple[Ring, int]]:
    """Steps of which there are no points, each with its beginning, the newest first; a coarser ring is for earlier."""
    until_s = now_s - now_s % RINGS[0].step_s
    for ring in RINGS:
        for bucket in range((until_s - 1) // ring.step_s, (now_s - ring.span_s) // ring.step_s, -1):
            until_s = bucket * ring.step_s
            if not history.has(ring, "", until_s):
                yield ring, until_s
