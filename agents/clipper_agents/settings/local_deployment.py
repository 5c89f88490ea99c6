"""Where the `up` that runs in a folder can be reached, for commands that are given in the same folder.

Rules of this file:
- A record counts while the process that wrote it holds its lock, which ends with the process, however that ends.
- A record has the settings of `[kafka]`, as the command line has them; there is no password among them.
- Nobody depends on a record: where it cannot be written or read, the address is given as ever.
"""

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec

from clipper_agents.settings.sections import KafkaSection
from clipper_stream.models.fetch import default_cache_dir


@contextlib.contextmanager
def recorded(kafka: KafkaSection) -> Iterator[None]:
    """Let commands in this folder find this Kafka for the time of the block, unless they find another `up` here."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: the user has no home
            path = _record_path()
            path.parent.mkdir(parents=True, exist_ok=True)
            record = stack.enter_context(path.open("a", encoding="utf-8"))
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stack.callback(path.unlink, missing_ok=True)
            record.truncate(0)
            record.write(json.dumps({f"kafka.{key}": str(value) for key, value in msgspec.to_builtins(kafka).items()}))
            record.flush()
        yield


def find_running() -> dict[str, str]:
    """Return the settings of the Kafka of the `up` that runs in this folder, by `section.key`; empty without one."""
    try:
        with _record_path().open("r", encoding="utf-8") as record:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(record, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return {}
            found: dict[str, str] = json.load(record)
            return found
    except (OSError, RuntimeError, ValueError):
        return {}


def _record_path() -> Path:
    folder = hashlib.sha256(str(Path.cwd().resolve()).encode()).hexdigest()
    return default_cache_dir().with_name("running") / f"{folder}.json"
