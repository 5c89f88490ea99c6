"""What a broker keeps from one start to the next, and who may use it.

data/                the records, formatted once with a cluster id
port                 where it listened last
broker.log           its warnings and errors
server.properties, log4j2.properties     written at each start
lock                 held by the JVM, so until the last moment in which it could write
"""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from clipper_agents.broker.properties import LOGGING
from clipper_stream.errors import SetupError


class BrokerNotStarted(SetupError):
    """No Java, no jars, a busy port, or the broker ended at its start; one line says which and what to do next."""


class PortTaken(BrokerNotStarted):
    """Somebody else listens on a port of the broker; met with other ports, unless the user named this one."""


LOCK_S = 5.0
"""The broker of a parent that was killed needs a moment to stop; one that runs longer is somebody's."""
POLL_S = 0.1


class DataDir:
    """Data folder of one broker."""

    def __init__(self, path: Path) -> None:
        self.path, self.records, self.log_file = path, path / "data", path / "broker.log"
        self.config_file, self.logging_file = path / "server.properties", path / "log4j2.properties"
        self._port_file = path / "port"

    @contextlib.contextmanager
    def locked(self) -> Iterator[IO[str]]:
        """The folder, made and ours alone; a child that inherits the file's descriptor keeps the lock."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.logging_file.write_text(LOGGING, encoding="utf-8")
            lock = (self.path / "lock").open("w", encoding="ascii")
        except OSError as error:
            raise BrokerNotStarted(
                f"{error.filename}: {error.strerror}; give a data_dir that can be written"
            ) from error
        with lock:
            self._acquire(lock)
            yield lock

    def _acquire(self, lock: IO[str]) -> None:
        end_s = time.monotonic() + LOCK_S
        while time.monotonic() < end_s:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(POLL_S)
        raise BrokerNotStarted(f"{self.path}: another broker runs in this data_dir: stop it, or give another one")

    def cluster_id(self) -> str | None:
        """The id under which the records were formatted, None before the first start."""
        meta = self.records / "meta.properties"
        if not meta.exists():
            return None
        lines = meta.read_text(encoding="utf-8").splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith("cluster.id="))

    def remembered_port(self) -> int | None:
        return int(self._port_file.read_text(encoding="ascii")) if self._port_file.exists() else None

    def remember_port(self, port: int) -> None:
        self._port_file.write_text(str(port), encoding="ascii")

    def log_size(self) -> int:
        return self.log_file.stat().st_size if self.log_file.exists() else 0

    def logged_since(self, position: int) -> str:
        with self.log_file.open("rb") as log:
            log.seek(position)
            return log.read().decode("utf-8", "replace")
