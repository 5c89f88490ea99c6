"""Workers find models beside the user, and nothing there stands for a module of the library."""

import subprocess
import sys
from importlib.util import find_spec

from clipper_agents.cli.worker import find_models_here
from clipper_agents.supervisor.workers import PROGRAM


def test_modules_of_the_working_directory_are_found_behind_those_that_are_installed(tmp_path, monkeypatch):
    for name in ("models_of_a_user", "fsspec"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    find_models_here()
    assert find_spec("models_of_a_user").origin == str(tmp_path / "models_of_a_user.py")
    assert find_spec("fsspec").origin != str(tmp_path / "fsspec.py")


def test_a_process_of_the_supervisor_imports_nothing_from_there_by_itself(tmp_path):
    (tmp_path / "typer.py").write_text("raise SystemExit('of the working directory')")
    done = subprocess.run([*PROGRAM, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:15]) == (0, "clipper-stream ")
