import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from operator import itemgetter

import pytest

from clipper_agents.supervisor.process import ChildNotReady, ChildSpec, end_with_stdin
from clipper_agents.supervisor.supervisor import Backoff, ProcessEnvironment, Supervisor
from clipper_stream.errors import UnknownName

READY = "print('ready role=router metrics=9', flush=True)\nwhile True: signal.pause()\n"
SERVING = f"import signal\nsignal.signal(signal.SIGTERM, lambda *_: exit(0))\n{READY}"
DRAINING = SERVING.replace("exit(0)", "(print('drained', flush=True), exit(0))")
DEAF = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{READY}"
LIFELINE = "from clipper_agents.supervisor.process import end_with_stdin\nend_with_stdin()\n"
STACK = "def sink(frames):\n    sink(frames - 1) if frames else faulthandler.dump_traceback(all_threads=True)\n"
HANGS = f"import faulthandler, sys\n{STACK}print('model hangs', file=sys.stderr, flush=True)\nsink(40)\nexit(3)"


class Supervised:
    """A supervisor and its surroundings: lines, delays; the clock stands still unless it is told to go on."""

    def __init__(self):
        self.lines, self.delays, self.now_s, self._slept = [], [], 0.0, asyncio.Condition()
        backoff, clock = Backoff(first_s=1.0, longest_s=4.0, calm_s=60.0), lambda: self.now_s
        self.supervisor = Supervisor(
            ProcessEnvironment(backoff=backoff, sleep=self.sleep, clock=clock, echo=self.lines.append)
        )

    async def sleep(self, delay_s):
        async with self._slept:
            self.delays.append(delay_s)
            self._slept.notify_all()

    async def until_delays(self, count):
        async with self._slept:
            await self._slept.wait_for(lambda: len(self.delays) >= count)

    async def start(self, *codes, **options):
        await self.supervisor.start([spec(code, name, **options) for code, name in zip(codes, "ab", strict=False)])

    async def kill(self):
        self.supervisor.children["a"].kill()
        await self.supervisor.children["a"].wait_ready()


def spec(code, name="a", **options):
    return ChildSpec(name=name, command=(sys.executable, "-c", code), **options)


def is_alive(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@pytest.fixture
async def around():
    found = Supervised()
    async with found.supervisor:
        yield found


async def test_the_reason_of_a_childs_own_end_is_told_and_none_of_a_stopped_one(around):
    heard, restarted, supervisor = [], [], around.supervisor
    supervisor.on_failure, supervisor.on_restart = lambda *said: heard.append(said), restarted.append
    await around.start(SERVING, SERVING)
    await supervisor.stop("b")
    await around.kill()
    with pytest.raises(ChildNotReady):
        await supervisor.start([spec("print('error: no such file')\nexit(3)", "c")])
    assert restarted == ["a"]
    (first, killed), (second, given_up) = heard
    assert (first, second) == ("a", "c")
    assert killed.startswith("was ended by signal 9, failures in a row: 1, next start after 0.0 s")
    assert given_up == "ended with exit code 3 before it was ready; last line: error: no such file"


async def test_a_started_child_serves_in_a_group_of_its_own_and_tells_its_fields(around, caplog):
    caplog.set_level("INFO")
    await around.start(SERVING, SERVING)
    assert around.supervisor.children["b"].fields == {"role": "router", "metrics": "9"}
    assert around.supervisor.children["b"].fields["metrics"] == "9"
    assert list(around.supervisor.children) == ["a", "b"]
    pids = [child.pid for child in around.supervisor.children.values()]
    assert all(map(is_alive, pids))
    assert list(map(os.getpgid, pids)) == pids, "a terminal interrupts the supervisor only"
    told = [record.fields for record in caplog.records if record.getMessage() == "child serves"]
    told.sort(key=itemgetter("child"))  # they start at the same time
    assert told == [{"child": name, "pid": pid} for name, pid in zip("ab", pids, strict=True)]
    with pytest.raises(UnknownName, match="runs already"):
        await around.start(SERVING)
    await around.supervisor.stop()
    assert not any(map(is_alive, pids))


@pytest.mark.parametrize(
    ("code", "options", "lines"),
    [
        (DRAINING, {}, ["child=a drained"]),
        (DEAF, {"drain_s": 0.1}, []),
        (LIFELINE + SERVING, {}, []),
        ('import os\nos.write(2, b"x" * (3 << 20) + b"\\n" + b"\\xff\\xfe bytes\\n")\n' + SERVING, {}, None),
    ],
    ids=["it drains", "it is killed when it does not", "with a lifeline", "after lines of any length and bytes"],
)
async def test_a_stop_ends_a_child(around, code, options, lines):
    await around.start(code, **options)
    pid = around.supervisor.children["a"].pid
    await around.supervisor.stop()
    assert not is_alive(pid)
    assert around.lines == lines if lines is not None else around.lines[-1] == "child=a \ufffd\ufffd bytes"


@pytest.mark.parametrize(
    ("ran_s", "delays"), [([0.0] * 5, [0.0, 1.0, 2.0, 4.0, 4.0]), ([0.0, 0.0, 61.0], [0.0, 1.0, 0.0])]
)
async def test_a_killed_child_starts_again_after_a_wait_that_grows_to_a_bound_until_a_calm_run(around, ran_s, delays):
    await around.start(SERVING)
    pids = {around.supervisor.children["a"].pid}
    for each_s in ran_s:
        around.now_s += each_s
        await around.kill()
        pids.add(around.supervisor.children["a"].pid)
    assert (around.delays, len(pids)) == (delays, len(ran_s) + 1)


async def test_a_child_that_served_once_is_tried_for_ever_and_says_how_it_ended(around, tmp_path):
    flag = tmp_path / "served"
    once = (
        f"import os, pathlib, signal\nflag = pathlib.Path({str(flag)!r})\nif flag.exists(): os._exit(7)\nflag.touch()\n"
    )
    await around.start(once + READY)
    child = around.supervisor.children["a"]
    assert not child.reason
    around.supervisor.children["a"].kill()
    await around.until_delays(7)
    assert "ended with exit code 7, failures in a row: " in child.reason
    assert ", next start after 4.0 s" in child.reason
    flag.unlink()
    await child.wait_ready()
    assert child.reason is None
    assert around.delays[:7] == [0.0, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0]


@pytest.mark.parametrize(
    ("code", "options", "said", "delays"),
    [
        ("exit('no such file')", {}, r"a ended with exit code 1 before it was ready.*no such file", [1.0, 2.0]),
        ("exit(3)", {}, "exit code 3", []),
        (HANGS, {}, r"ready; last lines: model hangs$", []),
        ("import signal; signal.pause()", {"ready_s": 0.2}, "was not ready in time", []),
    ],
    ids=["with its last words", "at once: a wrong set-up", "without the lines of a stack", "when its time is over"],
)
async def test_a_child_that_is_not_ready_is_given_up_and_the_others_are_not(around, code, options, said, delays):
    with pytest.raises(ChildNotReady, match=said):
        await around.supervisor.start([spec(code, **options), spec(SERVING, "b")])
    assert around.delays == delays
    assert len(around.lines) > 40 or code is not HANGS, "the log has the stack"
    assert await around.supervisor.children["b"].wait_ready()


async def test_what_is_killed_for_good_is_not_started_again(around):
    await around.start(SERVING, DEAF)
    around.supervisor.kill()
    await around.supervisor.stop()
    assert around.delays == [], "before each further start there is a wait"


async def test_a_program_that_does_not_exist_is_named(around):
    with pytest.raises(ChildNotReady, match="cannot start /no/such/program"):
        await around.supervisor.start([ChildSpec(name="a", command=("/no/such/program",))])


async def test_a_stop_between_two_runs_does_not_wait_for_the_backoff():
    waiting = asyncio.Event()

    async def endless(_):
        waiting.set()
        await asyncio.Event().wait()

    supervisor = Supervisor(ProcessEnvironment(sleep=endless))
    await supervisor.start([spec(SERVING)])
    supervisor.children["a"].kill()
    await waiting.wait()
    await supervisor.stop()
    assert supervisor.children == {}


SUPERVISOR = """
import asyncio, sys
from clipper_agents.supervisor.process import ChildSpec
from clipper_agents.supervisor.supervisor import Supervisor
async def main():
    supervisor = Supervisor()
    await supervisor.start([ChildSpec(name="a", command=(sys.executable, "-c", sys.argv[1]))])
    print(supervisor.children["a"].pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_children_end_when_their_supervisor_is_killed():
    command, ended = [sys.executable, "-c", SUPERVISOR, LIFELINE + SERVING], asyncio.Event()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        descriptor = os.pidfd_open(int(supervisor.stdout.readline()))
        supervisor.kill()
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(descriptor)
    os.close(descriptor)


def test_the_lifeline_terminates_at_the_end_of_the_pipe_and_not_before():
    ours, theirs = os.pipe()
    ended = threading.Event()
    thread = end_with_stdin(ours, ended.set)
    os.write(theirs, b"still here")
    assert not ended.is_set()
    os.close(theirs)
    thread.join(10)
    os.close(ours)
    assert ended.is_set()
