"""Fills the gaps of a history from what the topics still have, the newest times first.

Rules of this file:
- What is there stays: a point that was added live, or by an earlier rebuild, is never replaced.
- In all it takes a tenth of a core, and between two applications it lets the gateway's calls run.
- Broken off it has done no harm: the next one goes on with what is missing.
"""

import asyncio
import time
from collections.abc import Iterator

from clipper_agents.status.figures import point_of
from clipper_agents.status.past import PastReader
from clipper_gateway.console.history import RINGS, Ring, SeriesHistory

PAUSE_RATIO = 9
"""Seconds of rest for each second of work."""


async def rebuild(history: SeriesHistory, past: PastReader, now_s: float) -> None:
    """Fill what is missing before now.

    Raises:
        KafkaError: Kafka does not answer.
        TimeoutError: nothing comes.
    """
    await past.start()
    for ring, since_s in gaps(history, int(now_s)):
        began_s = time.process_time()
        builder = await past.between(since_s, since_s + ring.step_s)
        for name in sorted(builder.facts.declared.manifests.applications):
            history.add(name, since_s, *point_of(builder, name, ring.step_s), ring)
            await asyncio.sleep(0)
        history.add("", since_s, {}, {}, ring)
        await asyncio.sleep(PAUSE_RATIO * (time.process_time() - began_s))


def gaps(history: SeriesHistory, now_s: int) -> Iterator[tuple[Ring, int]]:
    """Steps of which there are no points, each with its beginning, the newest first; a coarser ring is for earlier."""
    until_s = now_s
    for ring in RINGS:
        since_s = now_s - ring.span_s
        for bucket in range(until_s // ring.step_s - 1, since_s // ring.step_s, -1):
            if not history.has(ring, "", bucket * ring.step_s):
                yield ring, bucket * ring.step_s
        until_s = since_s
