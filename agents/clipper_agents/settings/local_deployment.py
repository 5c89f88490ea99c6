"""The `up` that runs in a folder: where commands that are given there reach it, and what keeps a second one out.

Rules of this file:
- A record counts while the process that wrote it holds its lock, which ends with the process, however that ends.
- A record has the settings of `[kafka]`, as the command line has them; there is no password among them.
- Nobody depends on a record: where it cannot be written or read, the address is given as ever.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

import msgspec

from clipper_agents.settings.sections import KafkaSection
from clipper_stream.errors import InvalidSetting
from clipper_stream.models.fetch import default_cache_dir

ADDRESS, PREFIX = "kafka.bootstrap", "kafka.prefix"


@contextlib.contextmanager
def recorded(prefix: str) -> Iterator[Callable[[KafkaSection], None]]:
    """Hold this folder for the `up` of a prefix; what is yielded lets commands here find its Kafka from then on.

    Raises:
        InvalidSetting: one of this prefix runs here already.
    """
    if (other := _found()).get(PREFIX) == prefix:
        raise InvalidSetting(
            f"`up` runs in this folder already, as process {other['pid']} since {other['since']}: look at it by "
            f"`clipper-stream status`, end it by `kill {other['pid']}`, or start this one in another folder"
        )
    now = datetime.now()  # noqa: DTZ005 - by this machine's clock, as the user reads it
    about = {"pid": str(os.getpid()), "since": f"{now:%Y-%m-%d %H:%M:%S}", PREFIX: prefix}
    with contextlib.ExitStack() as stack:
        record = _locked_record(stack)

        def tell(kafka: KafkaSection) -> None:
            found = about | {f"kafka.{key}": str(value) for key, value in msgspec.to_builtins(kafka).items()}
            if record is not None:
                record.truncate(0)
                record.write(json.dumps(found))
                record.flush()

        tell(KafkaSection(prefix=prefix))
        yield tell


def find_running() -> dict[str, str]:
    """Return the settings of the Kafka of the `up` that serves in this folder, by `section.key`; empty without one."""
    found = _found()
    return {key: value for key, value in found.items() if key.startswith("kafka.")} if ADDRESS in found else {}


def _found() -> dict[str, str]:
    """What the `up` that runs in this folder has recorded; empty without one."""
    try:
        with _record_path().open("r", encoding="utf-8") as record:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(record, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return {}
            found: dict[str, str] = json.load(record)
            return found
    except (OSError, RuntimeError, ValueError):
        return {}


def _locked_record(stack: contextlib.ExitStack) -> IO[str] | None:
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: the user has no home
        path = _record_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        record = stack.enter_context(path.open("a", encoding="utf-8"))
        fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
        stack.callback(path.unlink, missing_ok=True)
        return record
    return None


def _record_path() -> Path:
    folder = hashlib.sha256(str(Path.cwd().resolve()).encode()).hexdigest()
    return default_cache_dir().with_name("running") / f"{folder}.json"
