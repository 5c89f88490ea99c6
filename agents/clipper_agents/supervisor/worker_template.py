"""The template of the worker processes: a process that has imported what they need, and forks one for each start.

    python -m clipper_agents.supervisor.worker_template DESCRIPTOR ______________

    supervisor --arguments, [status, stdin, stdout, stderr]--> template --fork--> worker: `cli.main.run()`
       ^--- status: pid and pidfd, then the exit code ------------'
    the supervisor's end closes: the template ends; its workers see the end of their own standard input

Rules of this file:
- Before the fork there is one thread, no event loop, no database, no logging and no module of a user: a template that
  has more than one thread says so and ends.
- A worker is as if it were executed: its own standard streams, process group, title and random state, and none of the
  template's descriptors.
- A pid is waited for here alone, and the supervisor signals through the pidfd: no pid is signalled after its reuse.
"""

import ctypes
import gc
import json
import os
import selectors
import socket
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

MAIN = "clipper_agents.cli.main"
PRELOADED = (
    MAIN,
    "clipper_agents.router.app",
    "clipper_agents.host.app",
    "clipper_agents.rollout.worker",
    "clipper_agents.kafka.startup_check",
    # what the libraries import at their first use
    "numpy.random",
    "encodings.idna",
    "faust.app.router",
    "faust.events",
    "faust.fixups.django",
    "faust.tables.objects",
    "faust.tables.sets",
    "faust.topics",
    "faust.transport.utils",
    "faust.worker",
)
"""Of this project and its libraries only; a model's module may change on the disk before the next start. A gateway
imports its own libraries: grpc is not made to be forked."""
REHEARSED = ["worker", "router", "--help"]
"""A command line that the template runs: the parser imports its libraries, 0.4 s of work, at its first use."""
REQUEST_BYTES = 65536
TITLE_ROOM = "_" * 1024
"""An argument of the template, which gives the titles of its workers their room."""


class _Worker(NamedTuple):
    pid: int
    status: socket.socket


def main() -> None:
    """Import, then fork workers until the supervisor has gone; in a worker, run its command line."""
    control = socket.socket(fileno=int(sys.argv[1]))
    show_command(f"{sys.executable} -m {__spec__.name}")
    for module in PRELOADED:
        import_module(module)
    sys.modules[MAIN].main(REHEARSED)
    gc.collect()
    gc.freeze()
    if len(threads := os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 (names are enough)
        sys.exit(f"error: the worker template has {len(threads)} threads after its imports, so it cannot fork")
    command = _serve(control)
    if command is not None:
        _run(command)


def _serve(control: socket.socket) -> list[str] | None:
    """Return None when the supervisor has gone; and once in each worker, whose command line it is."""
    workers: dict[int, _Worker] = {}
    with control, selectors.DefaultSelector() as ends:
        ends.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in ends.select():
                if key.fd in workers:
                    ends.unregister(key.fd)
                    _report_end(key.fd, workers.pop(key.fd))
                    continue
                request, descriptors, _, _ = socket.recv_fds(control, REQUEST_BYTES, 4)
                if not request:
                    return None
                status, *streams = descriptors
                worker = _fork(socket.socket(fileno=status), streams)
                if worker is None:
                    for pidfd, other in workers.items():
                        os.close(pidfd)
                        other.status.close()
                    command: list[str] = json.loads(request)
                    return command
                pidfd = os.pidfd_open(worker.pid)
                workers[pidfd] = worker
                ends.register(pidfd, selectors.EVENT_READ)
                _tell(worker.status, worker.pid, [pidfd])


def _fork(status: socket.socket, streams: list[int]) -> _Worker | None:
    """Fork; None in the worker, which has the streams as its standard input, output and error."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        for standard, descriptor in enumerate(streams):
            os.dup2(descriptor, standard)
        status.close()
    for descriptor in streams:
        os.close(descriptor)
    return _Worker(pid, status) if pid else None


def _report_end(pidfd: int, worker: _Worker) -> None:
    _, status = os.waitpid(worker.pid, 0)
    os.close(pidfd)
    with worker.status:
        _tell(worker.status, os.waitstatus_to_exitcode(status), [])


def _tell(status: socket.socket, number: int, descriptors: list[int]) -> None:
    try:
        socket.send_fds(status, [b"%d" % number], descriptors)
    except OSError:
        return  # the supervisor has gone, or wants to know no more


def _run(command: list[str]) -> None:
    """Run the command line, as this process; `random` has seeded itself at the fork."""
    show_command(" ".join(command))
    sys.modules["numpy.random"].seed()
    program = sys.modules[MAIN]
    sys.argv = [str(program.__file__), *command[command.index(MAIN) + 1 :]]
    program.run()


def show_command(command: str) -> None:
    """Have `ps` show a command line in place of the one that this process was started with."""
    begin, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    ctypes.memmove(
        begin, command.encode().replace(b" ", b"\0")[: end - begin - 1].ljust(end - begin, b"\0"), end - begin
    )


if __name__ == "__main__":
    main()
