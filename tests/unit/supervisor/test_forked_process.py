import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from e2e.programs import descendants, until

from clipper_agents.supervisor.forked_process import UNKNOWN_END, ForkedProcess, WorkerTemplate
from clipper_agents.supervisor.process import ChildProcess, ChildSpec
from clipper_agents.supervisor.workers import PROGRAM, worker_environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every worker is executed")

ENVIRONMENT = worker_environment({**os.environ, "KAFKA_BOOTSTRAP_SERVERS": "is a setting"})
WAITING = "waiting for kafka"


def spec(*arguments, program=PROGRAM, environment=ENVIRONMENT):
    return ChildSpec(name="a", command=(*program, *arguments), environment=environment)


def router(folder):
    """A router that serves never: it waits for its Kafka, and ends as every worker does."""
    settings = ("--set", "kafka.bootstrap=127.0.0.1:1", "--set", f"router.data_dir={folder}")
    return spec("worker", "router", "--instance", "router-0", *settings, "--ends-with-stdin")


@asynccontextmanager
async def template():
    made = WorkerTemplate(PROGRAM, ENVIRONMENT)
    made.start()
    try:
        yield made
    finally:
        made.close()


async def started(made, wanted):
    """The child, once it has said something, and whether it was forked."""
    said, program = asyncio.Event(), await made.launch(wanted)
    child = ChildProcess(wanted, program, lambda _: said.set())
    await said.wait()
    return child, isinstance(program, ForkedProcess)


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_a_forked_worker_runs_its_command_line_and_its_exit_code_is_told():
    async with template() as made:
        for arguments, code, line in ((("--version",), 0, "clipper-stream"), (("none",), 2, "No such command")):
            child, is_forked = await started(made, spec(*arguments))
            assert (is_forked, await child.wait()) == (True, code)
            assert any(line in one for one in child.tail)


async def test_a_forked_worker_looks_as_if_it_had_been_executed(tmp_path):
    async with template() as made:
        wanted = router(tmp_path)
        child, _ = await started(made, wanted)
        assert WAITING in child.tail[0]
        assert parent_of(child.pid) == made.pid
        assert os.getpgid(child.pid) == child.pid
        shown = Path(f"/proc/{child.pid}/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")
        assert shown == list(wanted.command)
        pipes = {Path(f"/proc/{child.pid}/fd/{number}").readlink().name for number in range(3)}
        assert len(pipes) == 3
        other, _ = await started(made, wanted)
        shared = pipes & {path.readlink().name for path in Path(f"/proc/{other.pid}/fd").iterdir()}
        assert not shared, "the end of one's standard input is held by another"
        await child.stop()
        assert await child.wait() == 0, "SIGTERM drains it"
        other.kill()
        assert await other.wait() == -signal.SIGKILL


async def test_another_program_or_another_environment_is_executed():
    async with template() as made:
        # it runs until it is told to end, so that its parent can be looked up
        code = "import os, time; print(os.environ['OMP_NUM_THREADS'], flush=True); time.sleep(600)"
        other, _ = await started(made, spec("-c", code, program=(sys.executable,)))
        assert parent_of(other.pid) == os.getpid()
        other.kill()
        assert await other.wait() == -signal.SIGKILL
        assert [*other.tail] == ["1"]
        threads = spec("--version", environment={**ENVIRONMENT, "OMP_NUM_THREADS": "2"})
        child, is_forked = await started(made, threads)
        assert (is_forked, await child.wait()) == (False, 0)


async def test_without_its_template_a_child_goes_on_and_the_next_one_is_forked_by_another(tmp_path):
    async with template() as made:
        child, _ = await started(made, router(tmp_path))
        first = made.pid
        os.kill(first, signal.SIGKILL)
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
        forked, is_forked = await started(made, router(tmp_path / "other"))
        assert is_forked
        assert parent_of(forked.pid) == made.pid != first
        forked.kill()
        assert await forked.wait() == -signal.SIGKILL
        child.kill()
        assert await child.wait() == UNKNOWN_END


async def test_without_a_template_that_can_start_a_child_is_executed(tmp_path):
    (tmp_path / "uvloop.py").write_text("raise SystemExit")  # the first of that name is found
    broken = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path)}
    made = WorkerTemplate(PROGRAM, broken)
    made.start()
    child, is_forked = await started(made, spec("--version", environment=broken))
    assert (is_forked, await child.wait()) == (False, 0)
    made.close()


async def test_where_the_temporary_folder_is_too_long_a_path_for_a_socket_a_child_is_executed(tmp_path, monkeypatch):
    (folder := tmp_path / ("long" * 25)).mkdir()
    monkeypatch.setattr("multiprocessing.util.get_temp_dir", lambda: str(folder))
    async with template() as made:
        child, is_forked = await started(made, spec("--version"))
        assert (is_forked, await child.wait()) == (False, 0)


PRELOAD = """
import os, sys
from importlib import import_module
from clipper_agents.supervisor.forked_process import PRELOADED
for module in PRELOADED:
    import_module(module)
assert "grpc" not in sys.modules
assert os.listdir("/proc/self/task") == [str(os.getpid())]
"""


def test_the_template_imports_no_grpc_and_starts_no_thread_so_that_it_can_be_forked():
    assert subprocess.run([sys.executable, "-c", PRELOAD], check=False, env=ENVIRONMENT).returncode == 0


SUPERVISOR = """
import asyncio, sys
from unit.supervisor.test_forked_process import router, started, template
async def main():
    async with template() as made:
        child, _ = await started(made, router(sys.argv[1]))
        print(made.pid, child.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def test_template_and_children_end_when_their_supervisor_is_killed(tmp_path):
    command, environ = [sys.executable, "-c", SUPERVISOR, str(tmp_path)], {**os.environ, "PYTHONPATH": "tests"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as supervisor:
        pids = set(map(int, supervisor.stdout.readline().split()))
        left = descendants(supervisor.pid)
        assert {process.pid for process in left} > pids, "multiprocessing has another one, its resource tracker"
        supervisor.kill()
    until("nothing is left", lambda: not any(process.runs for process in left), 20.0)
