"""Children are started, restarted and ended; none is left behind. The children are small Python programs."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from operator import itemgetter

import pytest

from clipper_agents.supervisor.process import ChildNotReady, ChildSpec, end_with_stdin
from clipper_agents.supervisor.supervised_process import Backoff, ProcessEnvironment
from clipper_agents.supervisor.supervisor import Supervisor
from clipper_stream.errors import UnknownName

READY = "print('ready role=router metrics=9', flush=True)\nwhile True: signal.pause()\n"
SERVING = f"import signal\nsignal.signal(signal.SIGTERM, lambda *_: exit(0))\n{READY}"
DRAINING = f"""
import signal
def drain(*_):
    print('drained', flush=True)
    exit(0)
signal.signal(signal.SIGTERM, drain)
{READY}"""
DEAF = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{READY}"


class Recorded:
    """Surroundings that remember: lines, delays; the clock stands still unless it is told to go on."""

    def __init__(self, calm_s=60.0):
        self.lines, self.delays, self.now_s = [], [], 0.0
        self.all = ProcessEnvironment(
            backoff=Backoff(first_s=1.0, longest_s=4.0, calm_s=calm_s),
            sleep=self.sleep,
            clock=lambda: self.now_s,
            echo=self.lines.append,
        )

    async def sleep(self, delay_s):
        self.delays.append(delay_s)
        await asyncio.sleep(0)


def spec(code, name="a", **arguments):
    return ChildSpec(name=name, command=(sys.executable, "-c", code), **arguments)


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, 30))


def is_alive(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_the_reason_of_a_childs_own_end_is_told_and_none_of_a_stopped_one():
    async def scenario():
        heard, restarted = [], []
        async with Supervisor(Recorded().all) as supervisor:
            supervisor.on_failure, supervisor.on_restart = lambda *said: heard.append(said), restarted.append
            await supervisor.start([spec(SERVING), spec(SERVING, "b")])
            await supervisor.stop("b")
            supervisor.kill("a")
            await supervisor.child("a").wait_ready()
            with pytest.raises(ChildNotReady):
                await supervisor.start([spec("print('error: no such file')\nexit(3)", "c")])
        assert restarted == ["a"]
        (first, killed), (second, given_up) = heard
        assert (first, second) == ("a", "c")
        assert killed.startswith("was ended by signal 9, failures in a row: 1, next start after 0.0 s")
        assert given_up == "ended with exit code 3 before it was ready; last line: error: no such file"

    run(scenario())


def test_a_child_that_hangs_is_told_by_its_sentence_and_not_by_a_line_of_a_stack():
    deep = "def sink(frames):\n    sink(frames - 1) if frames else faulthandler.dump_traceback(all_threads=True)\n"
    code = f"import faulthandler, sys\n{deep}print('model hangs', file=sys.stderr, flush=True)\nsink(40)\nexit(3)"

    async def scenario():
        around = Recorded()
        async with Supervisor(around.all) as supervisor:
            with pytest.raises(ChildNotReady, match=r"ready; last lines: model hangs$"):
                await supervisor.start([spec(code)])
        assert len(around.lines) > 40, "the log has the stack"

    run(scenario())


def test_a_started_child_serves_and_tells_its_fields(caplog):
    caplog.set_level("INFO")

    async def scenario():
        async with Supervisor(Recorded().all) as supervisor:
            await supervisor.start([spec(SERVING, "a"), spec(SERVING, "b")])
            assert supervisor.child("b").fields == {"role": "router", "metrics": "9"}
            assert supervisor.child("b").metrics_port == 9
            assert list(supervisor.children) == ["a", "b"]
            pids = [child.pid for child in supervisor.children.values()]
            assert all(map(is_alive, pids))
            told = [record.fields for record in caplog.records if record.getMessage() == "child serves"]
            told.sort(key=itemgetter("child"))  # they start at the same time
            assert told == [{"child": name, "pid": pid} for name, pid in zip("ab", pids, strict=True)]
        assert not any(map(is_alive, pids))

    run(scenario())


def test_a_stop_lets_the_child_drain():
    async def scenario():
        around = Recorded()
        async with Supervisor(around.all) as supervisor:
            await supervisor.start([spec(DRAINING)])
        assert around.lines == ["child=a drained"]

    run(scenario())


def test_a_child_that_does_not_drain_in_time_is_killed():
    async def scenario():
        supervisor = Supervisor(Recorded().all)
        await supervisor.start([spec(DEAF, drain_s=0.1)])
        pid = supervisor.child("a").pid
        await supervisor.stop()
        assert not is_alive(pid)

    run(scenario())


def test_a_killed_child_starts_again_at_once_then_after_a_wait_that_grows_to_a_bound():
    async def scenario():
        around = Recorded()
        async with Supervisor(around.all) as supervisor:
            await supervisor.start([spec(SERVING)])
            for count in range(2, 7):
                supervisor.kill("a")
                await supervisor.child("a").wait_ready()
                assert supervisor.child("a").starts == count
        assert around.delays == [0.0, 1.0, 2.0, 4.0, 4.0]

    run(scenario())


def test_a_child_that_served_once_is_tried_for_ever_and_says_how_it_ended(tmp_path):
    """It serves once, and then fails at each start, more often than a child that never served is tried."""
    flag = tmp_path / "served"
    code = (
        f"import os, pathlib, signal\nflag = pathlib.Path({str(flag)!r})\nif flag.exists(): os._exit(7)\nflag.touch()\n"
    )

    async def scenario():
        around = Recorded()
        async with Supervisor(around.all) as supervisor:
            await supervisor.start([spec(code + READY)])
            child = supervisor.child("a")
            assert not child.reason
            supervisor.kill("a")
            while len(around.delays) < 7:
                await asyncio.sleep(0)
            assert "ended with exit code 7, failures in a row: " in child.reason
            assert ", next start after 4.0 s" in child.reason
            flag.unlink()
            await child.wait_ready()
            assert child.reason is None
        assert around.delays[:7] == [0.0, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0]

    run(scenario())


def test_a_long_calm_run_resets_the_wait():
    async def scenario():
        around = Recorded(calm_s=60.0)
        async with Supervisor(around.all) as supervisor:
            await supervisor.start([spec(SERVING)])
            for ran_s in (0.0, 0.0, 61.0):
                around.now_s += ran_s
                supervisor.kill("a")
                await supervisor.child("a").wait_ready()
        assert around.delays == [0.0, 1.0, 0.0]

    run(scenario())


def test_a_child_that_crashes_before_it_is_ready_is_given_up_with_its_last_words():
    async def scenario():
        around = Recorded()
        async with Supervisor(around.all) as supervisor:
            with pytest.raises(ChildNotReady, match=r"a ended with exit code 1 before it was ready.*no such file"):
                await supervisor.start([spec("raise SystemExit('no such file')")])
        assert around.delays == [1.0, 2.0]

    run(scenario())


def test_a_child_that_says_its_setup_is_wrong_is_not_tried_again():
    async def scenario():
        around = Recorded()
        async with Supervisor(around.all) as supervisor:
            with pytest.raises(ChildNotReady, match="exit code 3"):
                await supervisor.start([spec("exit(3)"), spec(SERVING, "b")])
            assert await supervisor.child("b").wait_ready(), "the others are not affected"
        assert around.delays == []

    run(scenario())


def test_a_child_that_is_not_ready_in_time_is_killed_and_given_up():
    async def scenario():
        async with Supervisor(Recorded().all) as supervisor:
            with pytest.raises(ChildNotReady, match="was not ready in time"):
                await supervisor.start([spec("import signal; signal.pause()", ready_s=0.2)])

    run(scenario())


def test_a_program_that_does_not_exist_is_named():
    async def scenario():
        async with Supervisor(Recorded().all) as supervisor:
            with pytest.raises(ChildNotReady, match="cannot start /no/such/program"):
                await supervisor.start([ChildSpec(name="a", command=("/no/such/program",))])

    run(scenario())


def test_a_stop_between_two_runs_does_not_wait_for_the_backoff():
    async def scenario():
        around = Recorded()
        waiting = asyncio.Event()

        async def endless(_):
            waiting.set()
            await asyncio.Event().wait()

        supervisor = Supervisor(ProcessEnvironment(sleep=endless, echo=around.lines.append))
        await supervisor.start([spec(SERVING)])
        supervisor.kill("a")
        await waiting.wait()
        await supervisor.stop()
        assert supervisor.children == {}

    run(scenario())


def test_lines_of_any_length_and_bytes_do_not_stop_the_reading():
    async def scenario():
        around = Recorded()
        code = 'import os\nos.write(2, b"x" * (3 << 20) + b"\\n" + b"\\xff\\xfe bytes\\n")\n' + SERVING
        async with Supervisor(around.all) as supervisor:
            await supervisor.start([spec(code)])
        assert around.lines[-1] == "child=a \ufffd\ufffd bytes"

    run(scenario())


def test_a_name_is_used_once_and_an_unknown_one_is_refused():
    async def scenario():
        async with Supervisor(Recorded().all) as supervisor:
            await supervisor.start([spec(SERVING)])
            with pytest.raises(UnknownName, match="runs already"):
                await supervisor.start([spec(SERVING)])
            with pytest.raises(UnknownName, match="there is a"):
                supervisor.kill("b")

    run(scenario())


def test_a_child_has_a_process_group_so_a_terminal_interrupts_the_supervisor():
    async def scenario():
        async with Supervisor(Recorded().all) as supervisor:
            await supervisor.start([spec(SERVING)])
            pid = supervisor.child("a").pid
            assert os.getpgid(pid) == pid != os.getpgrp()

    run(scenario())


SUPERVISOR = """
import asyncio, sys
from clipper_agents.supervisor.process import ChildSpec
from clipper_agents.supervisor.supervisor import Supervisor
CHILD = '''
import signal
from clipper_agents.supervisor.process import end_with_stdin
signal.signal(signal.SIGTERM, lambda *_: exit(0))
end_with_stdin()
print("ready", flush=True)
while True: signal.pause()
'''
async def main():
    supervisor = Supervisor()
    await supervisor.start([ChildSpec(name="a", command=(sys.executable, "-c", CHILD))])
    print(supervisor.child("a").pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def test_children_end_when_their_supervisor_is_killed():
    with subprocess.Popen([sys.executable, "-c", SUPERVISOR], stdout=subprocess.PIPE, text=True) as supervisor:
        child = int(supervisor.stdout.readline())
        descriptor = os.pidfd_open(child)
        os.kill(supervisor.pid, signal.SIGKILL)
    ended = threading.Event()
    loop = asyncio.new_event_loop()
    loop.add_reader(descriptor, lambda: (ended.set(), loop.stop()))
    loop.call_later(20, loop.stop)
    loop.run_forever()
    loop.close()
    os.close(descriptor)
    assert ended.is_set()


def test_a_child_with_a_lifeline_ends_without_a_word():
    async def scenario():
        around = Recorded()
        lifeline = "from clipper_agents.supervisor.process import end_with_stdin\nend_with_stdin()\n"
        async with Supervisor(around.all) as supervisor:
            await supervisor.start([spec(lifeline + SERVING)])
        assert around.lines == []

    run(scenario())


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
