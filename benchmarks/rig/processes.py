"""Processes under measurement: started, waited for, charged for their CPU, ended. Linux only (/proc, affinity)."""

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

READY_S = 180.0
"""More than the 150 s that a worker has to become ready: on a busy machine the pipeline itself says what is wrong."""
END_S = 30.0
ROLES = {"router", "host", "echo", "KafkaStreamsNet", "FlinkNet"}
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
"""The kernel counts CPU time in steps of 1/TICKS_PER_S, so 10 ms."""


class NotServing(RuntimeError):
    """A process said nothing for too long, or ended before it was told to; the end of its log says why."""


@dataclass(frozen=True, slots=True)
class Cpus:
    """Who runs where: the rig (broker and generator) on its own CPUs, the system on the others.

    Attributes:
        rig: CPUs of broker and generator.
        system: CPUs of the system under measurement.
        hosts: CPUs of its model hosts; empty: those of the system.
    """

    rig: frozenset[int]
    system: frozenset[int]
    hosts: frozenset[int] = frozenset()

    @classmethod
    def split(cls, *, pin: bool) -> "Cpus":
        """Two for the rig where there are four or more, one where there are two or three, all for all without pin."""
        allowed = sorted(os.sched_getaffinity(0))
        if not pin or len(allowed) < 2:
            return cls(frozenset(allowed), frozenset(allowed))
        rig = allowed[: 2 if len(allowed) >= 4 else 1]
        return cls(frozenset(rig), frozenset(allowed) - frozenset(rig))

    @classmethod
    def single(cls, *, pin: bool) -> "Cpus":
        """The last CPU for the process under measurement; hosts have one of their own, or share the rig's of two."""
        allowed = sorted(os.sched_getaffinity(0))
        if not pin or len(allowed) < 2:
            return cls(frozenset(allowed), frozenset(allowed))
        rig = allowed[: 2 if len(allowed) >= 4 else 1]
        return cls(frozenset(rig), frozenset(allowed[-1:]), frozenset(allowed[len(rig) : -1] or rig))


@contextmanager
def on_cpus(cpus: frozenset[int]) -> Iterator[None]:
    """Processes that are started inside run on these CPUs; so does the calling thread meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(
    command: Sequence[str], log_file: Path, environ: Mapping[str, str], cpus: frozenset[int]
) -> Iterator[subprocess.Popen[str]]:
    """A process that has said `ready`, in a process group of its own; ended with the block.

    Raises:
        NotServing: it ended before the block did, or said nothing for `READY_S`.
    """
    with log_file.open("w") as log, on_cpus(cpus):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=dict(environ), start_new_session=True
        )
    try:
        _wait_ready(process, log_file)
        yield process
        _check_alive(process, log_file)
    finally:
        end(process)


def _wait_ready(process: subprocess.Popen[str], log_file: Path) -> None:
    said = threading.Event()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("ready"):
                said.set()

    threading.Thread(target=listen, daemon=True).start()
    give_up_s = time.monotonic() + READY_S
    while not said.wait(0.05):
        _check_alive(process, log_file)
        if time.monotonic() > give_up_s:
            raise NotServing(f"not ready after {READY_S:.0f} s: {_tail(log_file)}")


def _check_alive(process: subprocess.Popen[str], log_file: Path) -> None:
    if process.poll() is not None:
        raise NotServing(f"ended with exit code {process.returncode}: {_tail(log_file)}")


def _tail(log_file: Path) -> str:
    return f"{log_file.name}:\n{log_file.read_text(errors='replace')[-2_000:]}"


def end(process: subprocess.Popen[str]) -> None:
    """SIGTERM, and SIGKILL to the whole group for what is left after `END_S`."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tree(root: int) -> list[int]:
    """A process and all its descendants that live now."""
    parents = {pid: fields[1] for pid, fields in _all_stats()}
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += [child for child, parent in parents.items() if parent == str(pid)]
    return found


@contextmanager
def frozen(root: int) -> Iterator[None]:
    """A process and all its descendants stand still for the time of the block."""
    pids = tree(root)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def pin_hosts(root: int, cpus: frozenset[int]) -> None:
    """Move all threads of the model hosts under the root to these CPUs; threads that they start later stay there."""
    for pid in tree(root) if cpus else []:
        with suppress(OSError):  # it ended between the two looks
            if role(pid) == "host":
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), cpus)


def cpu_s_by_process(roots: Sequence[int]) -> dict[tuple[str, int], float]:
    """User and system seconds so far of each process under the roots, by (role, process id)."""
    seconds = {}
    for pid in {pid for root in roots for pid in tree(root)}:
        with suppress(OSError, IndexError):  # it ended between the two looks
            fields = _stat(pid)
            seconds[role(pid), pid] = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return seconds


def spent_by_role(before: Mapping[tuple[str, int], float], after: Mapping[tuple[str, int], float]) -> Counter[str]:
    """CPU seconds that the processes of each role took between two looks of `cpu_s_by_process`."""
    spent: Counter[str] = Counter()
    for (role, pid), seconds in after.items():
        spent[role] += seconds - before.get((role, pid), 0.0)
    return spent


def role(pid: int) -> str:
    """`router`, `host`, `echo`, the class of a rival in Java, or `supervisor`, by the command line."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return next((word for word in words if word in ROLES), "supervisor")


def _all_stats() -> Iterator[tuple[int, list[str]]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                yield int(entry.name), _stat(int(entry.name))
            except (OSError, IndexError):
                continue


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the command's name (proc(5)): state, parent, ...; 11 and 12 are the CPU."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def memory_mib_by_process(roots: Sequence[int]) -> dict[tuple[str, int], dict[str, float]]:
    """Resident memory (`rss`) and what of it is no file's (`anonymous`), by (role, process id), in MiB."""
    sizes = {}
    for pid in {pid for root in roots for pid in tree(root)}:
        with suppress(OSError, KeyError):  # it ended between the two looks
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            fields = {name: value for name, _, value in (line.partition(":") for line in lines)}
            kib = {"rss": fields["VmRSS"], "anonymous": fields["RssAnon"]}
            sizes[role(pid), pid] = {name: int(value.split()[0]) / 1024 for name, value in kib.items()}
    return sizes
