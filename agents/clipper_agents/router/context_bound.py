"""The bound of a partition's contexts: beyond it, those that had no feedback for the longest are forgotten.

Rules of this file:
- What is forgotten, and before which feedback, is in the changelog with the deletions, in one transaction: so whoever
  folds the logs forgets the same.
- Rows are looked through by a thread, which takes a hundredth of the time at most.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from clipper_agents.router.selection_store import SelectionStore
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.partition_writer import PartitionTakenOver

logger = logging.getLogger(__name__)

PAUSE_RATIO = 100.0
"""Of the time between two looks at a partition's rows, to that of a look."""


class ContextBound:
    """Holds the number of contexts of each owned partition down.

    Args:
        app: Has the generation and the state lock.
        topic: The feedback topic, whose partitions are owned.
        selection: The rows.
        most: Contexts of a partition, of all applications.
        passed: Seconds since any moment.
    """

    def __init__(
        self,
        app: ClipperApp,
        topic: str,
        selection: SelectionStore,
        most: int,
        passed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._topic, self._selection, self._most, self._passed = app, topic, selection, most, passed
        self._next_s: dict[int, float] = {}

    async def hold(self) -> None:
        """Look at the owned partitions that may have too many contexts, and forget some."""
        generation = self._app.generation
        for partition in self._app.owned_partitions(self._topic) if generation >= 0 else []:
            began_s = self._passed()
            if began_s < self._next_s.get(partition, began_s) or not self._selection.has_more(partition, self._most):
                continue
            found = await asyncio.to_thread(self._selection.surplus, partition, self._most)
            self._next_s[partition] = began_s + PAUSE_RATIO * (self._passed() - began_s)
            if found is None:
                continue
            async with self._app.state_lock.of(partition):
                if self._app.generation != generation:
                    return
                try:
                    count = await self._selection.forget_contexts(partition, *found)
                except PartitionTakenOver:  # which the next learning step reports
                    return
            logger.info("contexts forgotten partition=%d count=%d before=%d", partition, count, found[0])
