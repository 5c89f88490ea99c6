"""A run over logged inputs that is killed goes on where it was, and leaves no process behind."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from builders.input_files import write_inputs
from e2e.programs import CLIPPER_STREAM, descendants, environment, until

pytestmark = pytest.mark.e2e

MODEL = """
import threading
from pathlib import Path

HERE = Path(__file__).parent

def total(rows):
    with (HERE / "asked").open("a") as asked:
        asked.writelines(f"{int(row[0])}\\n" for row in rows)
    if (rows[:, 0] == 120).any() and (HERE / "hold").exists():
        (HERE / "held").touch()
        threading.Event().wait()
    return rows.sum(axis=1)
"""


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "acme_total.py").write_text(MODEL)
    (tmp_path / "hold").touch()
    inputs = write_inputs(tmp_path / "in.parquet", 200)
    command = [
        str(CLIPPER_STREAM), "replay", "score", str(inputs), "--model", "total:1", "--uri", "acme_total:total",
        "--shape", "2", "--out", str(tmp_path / "out.parquet"), "--cache-dir", str(tmp_path / "cache"), "--json",
    ]  # fmt: skip
    settings = environment(PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    with subprocess.Popen(command, env=settings, stdout=subprocess.PIPE) as running:
        until("the model holds the third chunk", (tmp_path / "held").exists)
        workers = descendants(running.pid)
        assert workers
        running.send_signal(signal.SIGKILL)
    until("the workers have ended", lambda: not any(worker.runs for worker in workers))
    assert not (tmp_path / "out.parquet").exists()

    (tmp_path / "hold").unlink()
    done = json.loads(subprocess.run(command, env=settings, stdout=subprocess.PIPE, check=True, timeout=100).stdout)
    assert (done["queries"], done["chunks"], done["computed"]) == (200, 4, 2)
    asked = [int(line) for line in (tmp_path / "asked").read_text().split()]
    # one row of zeros warms each process up; rows 100 to 149 were asked when the run was killed
    assert sorted(asked) == sorted([*range(200), *range(100, 150), 0, 0])
