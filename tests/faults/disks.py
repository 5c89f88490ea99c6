"""Disks that are full, and directories that cannot be written, for whoever runs the tests."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

BLOCK_BYTES = 4096
SHORT_BYTES = 64 * 1024
"""What a limited process prints goes to a file too: so it may write to short ones still."""
WITHOUT_OVERRIDE = (
    sys.executable,
    "-c",
    "import ctypes, os, sys; assert ctypes.CDLL(None).prctl(24, 1) == 0; os.execv(sys.argv[1], sys.argv[1:])",
)
"""Starts a program without CAP_DAC_OVERRIDE (PR_CAPBSET_DROP, 1): root has to respect a directory's mode too."""


def respecting_modes() -> tuple[str, ...]:
    """A command to start a program through, so that a directory's mode binds it, whoever runs it."""
    return WITHOUT_OVERRIDE if os.geteuid() == 0 else ()


class Disk(NamedTuple):
    """A folder on a disk that can be filled up for a process, and freed, at the latest for the next process."""

    kind: str
    folder: Path
    fill: Callable[[int], object]
    free: Callable[[], object]


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """A file system of its own, mounted where that is allowed: the error is ENOSPC. Else its files are limited."""
    folder.mkdir(parents=True)
    filler = folder / "filler"

    def fill(_: int) -> None:
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * BLOCK_BYTES)

    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, check=False, capture_output=True).returncode:
        yield limited(folder)
        return
    try:
        yield Disk("SmallDisk", folder, fill, filler.unlink)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def limited(folder: Path) -> Disk:
    limits = SHORT_BYTES, resource.RLIM_INFINITY
    return Disk("LimitedFiles", folder, lambda pid: resource.prlimit(pid, resource.RLIMIT_FSIZE, limits), lambda: None)


@contextmanager
def limited_files(folder: Path) -> Iterator[Disk]:
    """No file of the process may grow (RLIMIT_FSIZE): the error is EFBIG, and nobody needs a right for it."""
    folder.mkdir(parents=True)
    yield limited(folder)
