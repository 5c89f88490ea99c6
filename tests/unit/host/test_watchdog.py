import subprocess
import sys

import pytest

from clipper_agents import exits
from clipper_agents.host.batching import RowSpan
from clipper_agents.host.watchdog import ModelWatch, resident_bytes

HANGING = """
import ctypes, logging, threading, time
from clipper_agents.host.batching import RowSpan
from clipper_agents.host.watchdog import ModelWatch
logging.basicConfig()
watch = ModelWatch().add("m:1", 0.3)
watch.begin([RowSpan(None, 0, 3)])
{model}
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("model", "code", "says"),
    [
        ("threading.Event().wait()", exits.CRASHED, "model hangs, the process ends"),
        ("ctypes.PyDLL(None).sleep(3600)", exits.FAILURE, "Timeout (0:00:02"),
    ],
    ids=["waits for ever", "holds the interpreter lock for ever"],
)
def test_a_model_that_hangs_ends_its_process_with_a_line_and_its_stack(model, code, says):
    command = [sys.executable, "-c", HANGING.format(model=model)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == code
    assert says in done.stderr
    assert 'File "<string>", line 8' in done.stderr, "where it hangs"


@pytest.fixture
def ended():
    return []


def watch_of(ended, *memory):
    watch = ModelWatch(end=ended.append, outgrown=lambda: ended.append("drain"))
    watch._thread = object()  # the test looks itself
    return watch, watch.add("m:1", 10.0, *memory)


def test_a_batch_may_run_as_long_as_it_may_and_the_next_one_again(ended):
    watch, batch = watch_of(ended)
    for _ in range(3):
        batch.begin([RowSpan(None, 0, 1)])
        for _ in range(10):
            watch.look(1.0)
        batch.end()
        watch.look(100.0)
    assert ended == []
    batch.begin([RowSpan(None, 0, 1)])
    watch.look(10.5)
    assert ended == [exits.CRASHED]


def test_a_process_drains_once_when_it_has_more_memory_than_it_may(ended):
    allowed = resident_bytes() // 2**20
    watch, _ = watch_of(ended, allowed + 10_000)
    watch.look(1.0)
    assert ended == []
    watch, _ = watch_of(ended, allowed // 2)
    watch.look(1.0)
    watch.look(1.0)
    assert ended == ["drain"]
