"""What can be wrong with a disk, and how that is told: one line that names the place, what is wrong and what to do.

    start --> [claim the data directory] --StorageRefused, exit 3--> an operator changes something
                        |  '--StorageFailed, exit 1--> a supervisor tries again
                        v
    [databases] --StorageFailed--> the process ends, exit 4 --> a supervisor starts it again, after a while
         '--DatabaseCorrupt, set aside--> the process ends, exit 4 --> the next one builds it anew from the logs

Rules of this file:
- Nothing on this disk is the truth: all of it can be read again from Kafka. So whatever is wrong with it, the process
  may end at once, and nothing is repaired.
"""

import errno
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from clipper_stream.errors import ClipperError, SetupError

WAIT_FOR_OTHER_S = 20.0
"""A process that still drains when its successor starts has ended by then."""
LOOK_AGAIN_S = 0.1
LOCK = "in-use"
TOPICS = "topics"

_OWN = "each process an --instance or a data_dir of its own"
_GIVE_ANOTHER = "or give another data_dir"
_EXPLAINED = (
    ((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "no space is left", f"free some, {_GIVE_ANOTHER}"),
    ((errno.EROFS,), "it is read-only", f"mount it for writing, {_GIVE_ANOTHER}"),
    ((errno.EACCES, errno.EPERM), "this user may not write there", f"change its owner or its mode, {_GIVE_ANOTHER}"),
    ((errno.ENOTDIR, errno.EEXIST), "a file is where a directory has to be", f"move the file away, {_GIVE_ANOTHER}"),
    ((errno.EAGAIN, errno.ENOLCK), "another process uses it", f"end that one, or give {_OWN}"),
    ((errno.EMFILE, errno.ENFILE), "too many files are open", "raise the limit (ulimit -n)"),
    (
        (errno.ENOENT, errno.ESTALE, errno.ENODEV),
        "it has vanished",
        "put the disk back: what is missing is built anew from the logs",
    ),
)
_PASSES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)
"""Errors that may be gone at the next start, so that a supervisor tries again."""


class StorageFailed(ClipperError):
    """The disk does not take or give what it should; starting again may help."""


class StorageRefused(SetupError):
    """The data directory cannot be used until somebody changes something."""


def explained(path: Path, reason: OSError | str) -> str | None:
    """Return the place, what is wrong there and what to do; None for a reason that is not about the machine.

    The reason is an error of the operating system, or a message of RocksDB, which ends in one.

    >>> explained(Path("data/router"), "IO error: While appending to file: 7.log: No space left on device")
    'data/router: no space is left (No space left on device): free some, or give another data_dir'
    """
    for numbers, wrong, remedy in _EXPLAINED:
        for number in numbers:
            text = os.strerror(number)
            if reason.errno == number if isinstance(reason, OSError) else text in reason:
                return f"{path}: {wrong} ({text}): {remedy}"
    return None


def storage_failed(path: Path, reason: OSError | str) -> StorageFailed:
    """Return the error to raise, in the reason's own words when it is not explained."""
    return StorageFailed(explained(path, reason) or f"{path}: {reason}: look at the disk, or give another data_dir")


def claim(data_dir: Path, wait_s: float = WAIT_FOR_OTHER_S) -> int:
    """Make the directory, see that it can be written, and keep every other process out, which has `wait_s` to end.

    Returns:
        A file descriptor that holds the claim while it is open.

    Raises:
        StorageRefused: it is no directory, cannot be written, or is used by another process.
        StorageFailed: there is no space.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        _lock(data_dir, descriptor, time.monotonic() + wait_s)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        os.fsync(descriptor)
    except OSError as error:
        raise not_started(data_dir, error) from error
    return descriptor


def discard_stale_folders(data_dir: Path, topics: Mapping[str, bytes], folders: Iterable[Path]) -> None:
    """Delete folders with what was read from other topics than these, given with their ids; note the ids."""
    noted = data_dir / TOPICS
    wanted = "".join(f"{name} {topic_id.hex()}\n" for name, topic_id in sorted(topics.items()))
    try:
        if noted.exists() and noted.read_text() == wanted:
            return
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=not folder.is_dir())
        noted.write_text(wanted)
    except OSError as error:
        raise storage_failed(data_dir, error) from error


def not_started(data_dir: Path, error: OSError) -> StorageFailed | StorageRefused:
    """Return the error of a process that cannot start there: another start may help, or may not."""
    failed = storage_failed(data_dir, error)
    return failed if error.errno in _PASSES else StorageRefused(str(failed))


def _lock(data_dir: Path, descriptor: int, until_s: float) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= until_s:
                other = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
                raise StorageRefused(f"{data_dir}: {other} uses it: end that one, or give {_OWN}") from error
        time.sleep(LOOK_AGAIN_S)
