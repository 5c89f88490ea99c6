"""The selection table of a deployment against the serial fold of its logs.

end of the changelog --> control topic --> each partition, one after another

Rules of this file:
- Where the changelog ends is looked at first: so everything that led to a row that is compared is in the logs that are
  read. A deployment may go on meanwhile; what comes later is not looked at.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from clipper_agents.control.state import ControlState
from clipper_agents.kafka.reader import Record
from clipper_agents.replay.log_ranges import Logs
from clipper_agents.replay.partition_verifier import PartitionVerifier, VerificationInputs
from clipper_agents.replay.refold import learning_configs
from clipper_agents.replay.verdicts import PartitionVerdict, Verification
from clipper_topics.catalogue import Catalogue


async def verify(
    logs: Logs,
    catalogue: Catalogue,
    horizon_s: float,
    application: str | None = None,
    told: Callable[[PartitionVerdict], None] = lambda _: None,
) -> Verification:
    """Fold the logs again and compare.

    Args:
        logs: Logs of a deployment, such as `open_logs` opens.
        catalogue: Topics of the deployment.
        horizon_s: How long after its query a feedback counts, in seconds, as the routers have it.
        application: The application whose rows are compared; None: all.
        told: Called with the verdict on each partition.

    Raises:
        KafkaUnreachable: no broker answers.
    """
    started_s = time.perf_counter()
    known = await read_known(logs, catalogue, horizon_s, application)
    found: list[PartitionVerdict] = []
    for partition in range(catalogue.partitions):
        async with verifier(logs, known, partition) as one:
            found.append(await one.verify())
        told(found[-1])
    equal = not any(verdict.partings for verdict in found)
    return Verification(equal=equal, seconds=round(time.perf_counter() - started_s, 3), partitions=found)


@asynccontextmanager
async def verifier(logs: Logs, known: VerificationInputs, partition: int) -> AsyncIterator[PartitionVerifier]:
    """Open a verifier with a temporary folder of its own."""
    with TemporaryDirectory(prefix="clipper-verify-") as folder:
        one = PartitionVerifier(logs, known, partition, Path(folder))
        try:
            yield one
        finally:
            one.close()


async def read_known(
    logs: Logs, catalogue: Catalogue, horizon_s: float, application: str | None = None
) -> VerificationInputs:
    """Read what all partitions share; arguments as of `verify`."""
    changelog = catalogue.selection_changelog
    ends = [(await logs.bounds(changelog, number))[1] for number in range(catalogue.partitions)]
    control = ControlState(saved_rows=False)
    async for records in _whole(logs, catalogue.control):
        control.take(records)
    return VerificationInputs(
        catalogue=catalogue,
        configs=learning_configs(control),
        restores=control.restores,
        changelog_ends=ends,
        horizon_s=horizon_s,
        application=application,
    )


async def _whole(logs: Logs, topic: str) -> AsyncIterator[list[Record]]:
    start, end = await logs.bounds(topic, 0)
    async with aclosing(logs.read(topic, 0, start, end)) as lists:
        async for records in lists:
            yield records
