"""One way to go through decisions, in a process of its own that may not reserve more than 4 GiB: `reading_jobs.py JOB`.

The job is JSON: what to do, and with what. Result, as JSON: decisions, seconds, CPU seconds and peak memory, of this
process and of those that it started.
"""

import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from column_fold import fold_columns

from clipper_agents.kafka.aiokafka_patches import LeanKeys, install_records
from clipper_agents.replay.export import export_log
from clipper_agents.replay.log_reading import KafkaLog
from clipper_stream.evaluation.log.parquet import read_chunks
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

LIMIT_BYTES = 4 << 30


def kafka(bootstrap: str, prefix: str, processes: int) -> int:
    """The whole log, into a file."""
    log = KafkaLog(
        kafka=KafkaConnection(bootstrap),
        catalogue=Catalogue(prefix=prefix),
        application="digits",
        loss_kind="zero_one",
    )
    with tempfile.TemporaryDirectory() as folder:
        facts = export_log(log, Path(folder) / "decisions.parquet", processes)
    assert facts.counts["with_feedback"] == facts.counts["feedback"]
    return facts.decisions


def bare(bootstrap: str, prefix: str) -> int:
    """The same records by a loop around aiokafka that looks at none of them."""
    return asyncio.run(_bare(bootstrap, Catalogue(prefix=prefix)))


async def _bare(bootstrap: str, catalogue: Catalogue) -> int:
    install_records()
    found: dict[str, int] = {}
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        max_partition_fetch_bytes=4 << 20,
        key_deserializer=LeanKeys(),
    ) as consumer:
        for topic in (catalogue.predictions, catalogue.feedback):
            for number in range(catalogue.partitions):
                tp = TopicPartition(topic, number)
                consumer.assign([tp])
                consumer.seek(tp, 0)
                end = (await consumer.end_offsets([tp]))[tp]
                while await consumer.position(tp) < end:
                    for records in (await consumer.getmany(tp, timeout_ms=100)).values():
                        found[topic] = found.get(topic, 0) + len(records)
    return found[catalogue.predictions]


def estimate(path: str) -> int:
    """A file into arrays."""
    return sum(map(len, read_chunks(Path(path))))


def fold(path: str) -> int:
    """A file into the states of all partitions and contexts."""
    decisions = 0

    def counted() -> Any:
        nonlocal decisions
        for columns in read_chunks(Path(path)):
            decisions += len(columns)
            yield columns

    fold_columns(counted())
    return decisions


JOBS: dict[str, Callable[..., int]] = {"kafka": kafka, "bare": bare, "estimate": estimate, "fold": fold}


def peak_mib() -> float:
    """Of this process since its program began; `ru_maxrss` has that of the one which started it, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))
    job = json.loads(sys.argv[1])
    began_s, before_s = time.perf_counter(), time.process_time()
    decisions = JOBS[job.pop("job")](**job)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = {
        "decisions": decisions,
        "seconds": time.perf_counter() - began_s,
        "cpu_s": time.process_time() - before_s + children.ru_utime + children.ru_stime,
        "peak_mib": peak_mib(),
        "peak_child_mib": children.ru_maxrss / 1024,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
