import asyncio
import dataclasses
import inspect
import io
import json
import os
import signal
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
from sources import ROOT, page_script
from typer.testing import CliRunner

from clipper_agents import exits
from clipper_agents.cli import main as program
from clipper_agents.cli.loadgen import loadgen
from clipper_agents.cli.worker import find_models_here
from clipper_agents.settings import load_settings
from clipper_agents.supervisor.workers import PROGRAM
from clipper_loadgen import LoadPlan
from clipper_stream import errors


def test_the_help_of_each_command_has_an_example_and_names_no_file_that_only_the_repository_has():
    names = [tuple(name.split()) for name, _ in page_script("command_line").commands()]
    assert len(names) > 30
    for command in [(), *names]:
        shown = CliRunner().invoke(program.app, [*command, "--help"])
        text = " ".join(shown.output.split())
        assert shown.exit_code == exits.OK
        assert [name for name in ("examples/", "docs/", "benchmarks/", "deploy/") if name in text] == [], command
        if command:
            assert f"Example: clipper-stream {' '.join(command)}" in text
        else:
            assert [name for name, *_ in names if f" {name} " not in text] == []
            assert "0 done, 1 failed, 2 wrong usage, 3 wrong setup" in text


def test_help_and_version_import_nothing_of_kafka_numpy_or_rich():
    code = """
import sys
from clipper_agents.cli.main import main
main(["--help"])
heavy = {"aiokafka", "faust", "numpy", "rich", "msgspec", "prometheus_client"} & sys.modules.keys()
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_is_that_of_the_distribution(ran):
    code, out, _ = ran("--version")
    assert (code, out[:17]) == (exits.OK, "clipper-stream 0.")


def test_init_writes_a_project_that_is_taken_as_it_is_and_overwrites_nothing(ran, tmp_path):
    code, out, _ = ran("init", "mine")
    assert (code, "wrote mine/clipper.toml and mine/my_models.py" in out) == (exits.OK, True)
    assert load_settings(tmp_path / "mine/clipper.toml", {}).applications[0].name == "sums"
    written = {}
    exec((tmp_path / "mine/my_models.py").read_text(), written)
    assert written["more_than_one"](np.array([[0.5, 0.2, 0.9], [0.1, 0.2, 0.3]])).tolist() == [1, 0]
    (tmp_path / "mine/clipper.toml").unlink()
    assert ran("init", "mine")[0] == exits.SETUP
    assert not (tmp_path / "mine/clipper.toml").exists()
    (tmp_path / "file").touch()
    assert "file: File exists; name a folder" in ran("init", "file")[2]


def test_a_shell_completes_commands():
    environ = {"_CLIPPER_STREAM_COMPLETE": "complete_bash", "COMP_WORDS": "clipper-stream appl", "COMP_CWORD": "1"}
    shown = CliRunner().invoke(program.app, prog_name="clipper-stream", env=environ)
    assert {*shown.output.split()} == {"application", "apply"}


def test_an_extra_is_installed_from_where_the_package_came(monkeypatch, tmp_path):
    assert errors.install_command("onnx") == f"pip install -e '{ROOT}[onnx]'"
    monkeypatch.setattr(errors, "CLONE", tmp_path)
    found = {"direct_url.json": json.dumps({"url": "file:///wheels/clipper_stream-0.1.0-py3-none-any.whl"})}
    monkeypatch.setattr(metadata, "distribution", lambda _: SimpleNamespace(read_text=found.get))
    wheel = "'clipper-stream[onnx] @ file:///wheels/clipper_stream-0.1.0-py3-none-any.whl'"
    assert errors.install_command("onnx") == f"pip install {wheel}"
    found.clear()
    assert errors.install_command("onnx") == "pip install 'clipper-stream[onnx]'"


async def test_ctrl_c_says_what_it_waits_for_and_a_second_one_ends_at_once(caplog):
    ended, killed, loop = [], [], asyncio.get_running_loop()
    exits.end_on_signals(lambda: ended.append(1), lambda: "all is answered", lambda: killed.append(1))
    for count, number in enumerate((signal.SIGTERM, signal.SIGINT, signal.SIGINT, signal.SIGTERM), 1):
        os.kill(os.getpid(), number)
        while len(ended) < count:
            await asyncio.sleep(0)
        assert len(killed) == (count > 2)
    (said,) = caplog.records
    assert said.getMessage() == "ending: all is answered; a second Ctrl-C ends at once"
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)


def test_each_problem_of_a_configuration_has_its_line(ran, tmp_path):
    (tmp_path / "clipper.toml").write_text('[[application]]\nname = "a"\nmodels = ["b:1", "c:1"]\n')
    code, _, err = ran("up")
    assert code == exits.SETUP
    told = "error: clipper.toml: application 'a': model"
    assert [line[: len(told)] for line in err.splitlines()] == [told, told]


def test_every_model_that_does_not_load_is_told_before_anything_starts(ran, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "shop.py").write_text("def right(rows): return [1] * len(rows)\nraise_ = 1 / 0\n")
    (tmp_path / "b.skops").write_bytes(b"no zip")
    models = [
        ("a", "python", "shop:right"),
        ("b", "sklearn", "b.skops"),
        ("c", "python", "clipper_agents.examples.models:slow"),
        ("d", "onnx", "d.onnx"),
    ]
    tables = [f'[[model]]\nname = "{name}"\nruntime = "{runtime}"\nuri = "{uri}"\n' for name, runtime, uri in models]
    (tmp_path / "clipper.toml").write_text("".join(tables))
    code, out, err = ran("up")
    assert (code, out) == (exits.SETUP, "")
    told = [line.removeprefix("error: ") for line in err.splitlines()]
    assert "give --unchecked" in told[0]
    assert [line[:10] for line in told[1:]] == ["model a:1:", "model b:1:", "model d:1:"]
    for line, said in zip(told[1:], ("division by zero", "write it with skops.io.dump", "No such file"), strict=True):
        assert said in line


def test_a_defect_ends_with_1_and_its_traceback_an_interrupt_with_130_and_none(ran):
    def raises(error):
        def ended(arguments):
            raise error

        return ended

    code, _, err = ran("up", program=raises(ZeroDivisionError("no such luck")))
    assert (code, "ZeroDivisionError: no such luck" in err.splitlines()[-2]) == (exits.FAILURE, True)
    assert ran("up", program=raises(KeyboardInterrupt())) == (exits.INTERRUPTED, "", "")


def test_an_input_can_come_from_standard_input(ran, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"[1, 2")))
    code, _, err = ran("predict", "sums", "-", "--bootstrap", "127.0.0.1:1")
    assert (code, "'[1, 2' is no JSON" in err) == (exits.USAGE, True)


RENAMED = """
rate_per_s=rate duration_s=seconds warmup_s=warmup_seconds repeat_ratio=repeats
feedback_delay_s=feedback_delay_ms
"""
"""Fields of a plan whose option has another name, and that option."""


def test_every_field_of_a_plan_of_load_is_an_option_with_the_same_default():
    offered, option_of = inspect.signature(loadgen).parameters, dict(pair.split("=") for pair in RENAMED.split())
    required = {"application", "dataset"}
    defaults = {field.name: field.default for field in dataclasses.fields(LoadPlan) if field.name not in required}
    assert (defaults.pop("mode"), offered["saturate"].default) == ("rate", False)
    for name in ("linger_s", "recent", "drain_s"):
        del defaults[name]  # benchmarks alone have it
    assert {name: offered[option_of.get(name, name)].default for name in defaults} == defaults


# --- workers find models beside the user, and nothing there stands for a module of the library ---------------------
def test_modules_of_the_working_directory_are_found_behind_those_that_are_installed(tmp_path, monkeypatch):
    for name in ("models_of_a_user", "fsspec"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.setattr(sys, "path", [*sys.path])
    find_models_here()
    assert find_spec("models_of_a_user").origin == str(tmp_path / "models_of_a_user.py")
    assert find_spec("fsspec").origin != str(tmp_path / "fsspec.py")


def test_a_process_of_the_supervisor_imports_nothing_from_there_by_itself(tmp_path):
    (tmp_path / "typer.py").write_text("raise SystemExit('of the working directory')")
    done = subprocess.run([*PROGRAM, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:15]) == (0, "clipper-stream ")
