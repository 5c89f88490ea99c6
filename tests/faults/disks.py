"""Disks that are full, and directories that cannot be written, for whoever runs the tests."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

BLOCK_BYTES = 4096
WITHOUT_OVERRIDE = (
    sys.executable,
    "-c",
    "import ctypes, os, sys; assert ctypes.CDLL(None).prctl(24, 1) == 0; os.execv(sys.argv[1], sys.argv[1:])",
)
"""Starts a program without CAP_DAC_OVERRIDE (PR_CAPBSET_DROP, 1): root has to respect a directory's mode too."""


def respecting_modes() -> tuple[str, ...]:
    """A command to start a program through, so that a directory's mode binds it, whoever runs it."""
    return WITHOUT_OVERRIDE if os.geteuid() == 0 else ()


class Disk(Protocol):
    """A folder on a disk that can be filled up.

    Attributes:
        folder: Where it is.
    """

    folder: Path

    def fill(self, pid: int) -> None:
        """From now on the process finds no space there."""

    def free(self) -> None:
        """There is space again, at the latest for the next process."""


class SmallDisk:
    """A file system of its own of a few MiB: the error is ENOSPC. Mounting is not everybody's right."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, pid: int) -> None:
        with (self.folder / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * BLOCK_BYTES)
            except OSError:
                return

    def free(self) -> None:
        (self.folder / "filler").unlink()


class LimitedFiles:
    """No file of the process may grow (RLIMIT_FSIZE): the error is EFBIG, and nobody needs a right for it.

    What it prints goes to a file too: so it may write to short ones still.
    """

    SHORT_BYTES = 64 * 1024

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (self.SHORT_BYTES, resource.RLIM_INFINITY))

    def free(self) -> None:
        """The next process has no such limit."""


@contextmanager
def small_disk(folder: Path, size: str = "48m") -> Iterator[Disk]:
    """A disk that can be filled: mounted where that is allowed, else one whose files cannot grow."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    allowed = shutil.which("mount") and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    if not allowed:
        yield LimitedFiles(folder)
        return
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def limited_files(folder: Path) -> Iterator[Disk]:
    """A disk whose files cannot grow, wherever mounting is allowed too."""
    folder.mkdir(parents=True)
    yield LimitedFiles(folder)
