"""Makes the AOT cache (JEP 483), with which a broker starts in half the processor time.

Rules of this file:
- No start waits for it: a process of low priority makes it while the first broker runs, and ends with that broker. One
  that did not get done, because the broker ended first or the folder cannot be written, is tried by the next broker.
- One process makes it at a time, and it has its name when it is complete: who finds it finds all of it.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

from clipper_agents.broker.data_dir import DataDir
from clipper_agents.broker.node import KafkaNode, Making, new_cluster_id
from clipper_agents.broker.process import GuardedProcess
from clipper_agents.broker.properties import Node, free_port
from clipper_agents.broker.runtime import KAFKA_VERSION, KafkaRuntime

NICENESS = 10
"""Takes a tenth of a core where somebody else wants it: seven seconds on an idle machine are a minute on a busy one."""
RECORDED_WITHIN_S = 600.0
HEAP_MIB = 256
MAKE = "import sys; from clipper_agents.broker.aot_cache import make; make(*sys.argv[1:])"


class AotCacheProcess:
    """The process that makes the cache of a runtime."""

    def __init__(self, process: GuardedProcess, folder: Path) -> None:
        self._process, self._folder = process, folder

    @classmethod
    def start(cls, runtime: KafkaRuntime) -> Self | None:
        """Start it; None when there is nothing to do: a cache exists, is being made, or cannot be."""
        cache = runtime.aot_cache
        if cache is None or cache.is_file():
            return None
        try:
            with (cache.parent / "aot.lock").open("w", encoding="ascii") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # kept by the process, which inherits it
                folder = Path(tempfile.mkdtemp(prefix="clipper-kafka-"))
                jars = os.pathsep.join(map(str, runtime.jars))
                command = [sys.executable, "-c", MAKE, str(runtime.java), jars, str(cache), str(folder)]
                return cls(GuardedProcess(command, folder / "log", folder, (lock.fileno(),)), folder)
        except OSError:
            return None

    @property
    def pid(self) -> int | None:
        """Process id, None when it has ended."""
        return self._process.pid if self._process.exit_code is None else None

    def stop(self) -> None:
        """End it, with what it has started and what it has not finished."""
        self._process.stop(kill=True)
        shutil.rmtree(self._folder, ignore_errors=True)


def make(java: str, jars: str, cache: str, folder: str) -> None:
    """Record which classes a broker loads at its start, and make the cache of them; any older one goes."""
    os.nice(NICENESS)
    runtime = KafkaRuntime(Path(java), tuple(map(Path, jars.split(os.pathsep))))
    recorded, unfinished = Path(folder) / "recorded", Path(cache).with_suffix(".new")
    place = Node(node_id=1, port=free_port(), controller_port=free_port())
    recording = ("-XX:AOTMode=record", f"-XX:AOTConfiguration={recorded}")
    making = Making(heap_mib=HEAP_MIB, temporary=True, recording=recording)
    data_dir = DataDir(Path(folder) / "broker")
    node = KafkaNode(data_dir, place, [place], making, runtime, new_cluster_id())
    node.start()
    node.stop(within_s=RECORDED_WITHIN_S)
    creating = ("-XX:AOTMode=create", f"-XX:AOTConfiguration={recorded}", f"-XX:AOTCache={unfinished}")
    subprocess.run(runtime.command([*making.options(data_dir), *creating], "kafka.Kafka"), check=True)
    with unfinished.open("rb") as made:
        os.fsync(made.fileno())
    for older in unfinished.parent.glob(f"kafka-{KAFKA_VERSION}-*.aot"):
        older.unlink(missing_ok=True)
    unfinished.replace(cache)
    shutil.rmtree(folder, ignore_errors=True)
