import os
import signal
import subprocess
from pathlib import Path

from builders.input_files import write_inputs
from e2e.programs import CLIPPER_STREAM, descendants, environment, until

MODEL = """
import threading
from pathlib import Path

def total(rows):
    (Path(__file__).parent / "held").touch()
    threading.Event().wait()
"""


def test_a_run_that_is_killed_leaves_no_process_and_no_file_of_answers(tmp_path: Path) -> None:
    (tmp_path / "acme_total.py").write_text(MODEL)
    command = [
        str(CLIPPER_STREAM), "replay", "score", str(write_inputs(tmp_path / "in.parquet", 10)), "--model", "total:1",
        "--uri", "acme_total:total", "--shape", "2", "--out", str(tmp_path / "out.parquet"),
    ]  # fmt: skip
    settings = environment(PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    with subprocess.Popen(command, env=settings) as running:
        until("the model holds a batch", (tmp_path / "held").exists)
        workers = descendants(running.pid)
        assert workers
        running.send_signal(signal.SIGKILL)
    until("the workers have ended", lambda: not any(worker.runs for worker in workers))
    assert not (tmp_path / "out.parquet").exists()
