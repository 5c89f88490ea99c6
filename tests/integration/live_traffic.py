"""Two applications that learn under traffic on a real Kafka, and their table beside the oracle's fold of the logs."""

import asyncio
import json
from contextlib import asynccontextmanager

import oracle
from builders.router_deployment import MODELS, WITHIN_S, app, total

from clipper_agents.control.selection_states import read_rows

APPLICATIONS = [app(), app("other")]
HOSTS = {"m:1": total, "n:1": lambda row: total(row) + int(row[0]) % 2}


@asynccontextmanager
async def served(at):
    """The deployment with both applications, and hosts that serve them for the time of the block."""
    await at.declare(*APPLICATIONS, *MODELS)
    async with at.host(HOSTS):
        yield at


class Traffic:
    """Asks both applications in both partitions, with and without contexts, and says the truth about every query.

    Args:
        at: The deployment.
        first: Number of the first query.

    Attributes:
        asked: Number of the next query.
    """

    def __init__(self, at, first=0):
        self.at, self.asked, self._stopped = at, first, False
        self._progress = asyncio.Condition()

    @asynccontextmanager
    async def going_on(self):
        """Ask until the end of the block, or until it is stopped."""
        self._asking = asyncio.create_task(self._ask())
        yield self
        await self.stop()

    async def stop(self):
        self._stopped = True
        await self._asking

    async def _ask(self):
        async with self.at.producer() as producer:
            while not self._stopped:
                number, partition = self.asked, self.asked % 2
                query = {"query_id": f"q{number}", "application": ("app", "app", "other")[number % 3]}
                context = {} if number % 5 else {"context": f"c{number % 4}"}
                value = json.dumps(query | context | {"input": [number % 50, 1]}).encode()
                await producer.send(self.at.catalogue.queries, value, partition=partition)
                truth = json.dumps({"query_id": f"q{number}", "label": number % 50 + (number % 7 > 0)}).encode()
                await producer.send_and_wait(self.at.catalogue.feedback, truth, partition=partition)
                self.asked += 1
                async with self._progress:
                    self._progress.notify_all()

    async def reaches(self, count):
        goal = self.asked + count
        async with self._progress, asyncio.timeout(WITHIN_S):
            await self._progress.wait_for(lambda: self.asked >= goal)


def counted(table):
    return sum(row.applied for key, row in table.items() if key[0])


async def learned(at, count):
    await at.read(at.catalogue.selection_changelog, lambda records: counted(oracle.table(records)) >= count)


async def settled(at, **policy):
    """The table, once it is where the feedback ends and the serial fold of the logs, bit for bit."""
    feedback = await at.read(at.catalogue.feedback)
    ends = {one.partition: one.offset for one in feedback}
    changelog = await at.read(
        at.catalogue.selection_changelog, lambda records: oracle.positions(oracle.table(records)) == ends
    )
    control = await at.read(at.catalogue.control)
    applications = {"app": {"policy": policy}, "other": {}}
    expected = oracle.fold(await at.read(at.catalogue.predictions), feedback, applications, control=control)
    table = oracle.table(changelog)
    assert {key: row.bits for key, row in table.items()} == {key: row.bits for key, row in expected.items()}
    return table


async def rows_of(at, application="app"):
    return await read_rows(at.kafka, at.catalogue, application)
