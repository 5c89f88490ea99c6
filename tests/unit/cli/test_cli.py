import dataclasses
import inspect
import io
import shlex
import subprocess
import sys
from importlib.util import find_spec

import pytest
from sources import page_script
from typer.testing import CliRunner

from clipper_agents import exits
from clipper_agents.cli import main as program
from clipper_agents.cli.loadgen import loadgen
from clipper_agents.cli.worker import find_models_here
from clipper_agents.supervisor.workers import PROGRAM
from clipper_loadgen import LoadPlan


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


ONE_OUTCOME = "exactly one of --label, --loss and --reward"
ONE_STATE = "exactly one of --from and --undo"
NO_FILE = "No such file or directory; give the path of a clipper.toml"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("frobnicate", "No such command 'frobnicate'"),
        ("predict sums", "Missing argument"),
        ("predict sums [1,", "'[1,' is no JSON"),
        ("feedback 0-1", ONE_OUTCOME),
        ("feedback 0-1 --label 1 --loss 0", ONE_OUTCOME),
        ("feedback 0-1 --loss 2", "2.0 is not in the range 0<=x<=1"),
        ("selection restore sums", ONE_STATE),
        ("selection restore sums --undo --from x", ONE_STATE),
        ("topics list --set router.processes", "write SECTION.KEY=VALUE"),
        ("model deploy svm:2 -a digits --stage sunny", "'sunny' is not one of"),
        ("model deploy svm:2 -a digits --uri m:f --shape 8x8", "--shape 8x8: write numbers with commas"),
        ("model canary svm:2", "Missing option '--share'"),
        ("application update digits --field loss", "--field loss: write KEY=VALUE"),
        ("replay evaluate digits", "candidate"),
        ("loadgen --application digits --repeats 2", "2.0 is not in the range 0<=x<=1"),
        ("loadgen --application digits --feedback-delay-ms -50", "-50.0 is not in the range x>=0"),
        ("loadgen --application digits --rate 0", "0.0 is not in the range x>=0.1"),
        ("loadgen --application digits --saturate --outstanding 0", "0 is not in the range x>=1"),
        ("loadgen --application digits --arrivals often", "'often' is not one of 'poisson', 'constant'"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_says_what_is_wrong(ran, line, said):
    code, out, err = ran(*shlex.split(line))
    assert (code, out) == (exits.USAGE, "")
    assert said in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("up", f"clipper.toml: {NO_FILE}"),
        ("apply --config x.toml", f"x.toml: {NO_FILE}"),
        ("topics list", "no Kafka address: give --bootstrap HOST:PORT, KAFKA_BOOTSTRAP_SERVERS or [kafka] bootstrap"),
        ("topics list --bootstrap a:1 --set kafka.username=ada", "KAFKA_SASL_PASSWORD is not set"),
        ("up --log-level loud", "log level 'loud': use one of debug, info, warning, error"),
        ("predict sums [1] --bootstrap 127.0.0.1:1", "127.0.0.1:1"),
        ("keys create Shop", "API key: name = 'Shop': expected str of lower case letters"),
        ("keys create shop --right fly", "use one of feedback, operate, predict, read"),
        ("keys create shop --rate 0", "rate = 0.0"),
        ("keys create shop --file no/keys.json", "no/keys.json: No such file or directory"),
        ("keys list --config no.toml", "no.toml: No such file or directory"),
        ("loadgen --application digits --inputs rows.csv", "use a .npy or"),
    ],
)
def test_a_wrong_setup_ends_with_3_and_one_line(ran, line, said):
    code, out, err = ran(*shlex.split(line))
    assert (code, out, err.count("\n"), err[:7]) == (exits.SETUP, "", 1, "error: ")
    assert said in err


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
