"""What the program says and with which code it ends, without a Kafka."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from clipper_agents import exits
from clipper_agents.cli import main as program
from clipper_agents.cli.reference import commands

NO_ADDRESS = (
    "no Kafka address: give --bootstrap HOST:PORT, KAFKA_BOOTSTRAP_SERVERS or [kafka] bootstrap, "
    "or run `clipper-stream up` in this folder"
)
COMMANDS = [tuple(name.split()) for name, _ in commands()]


@pytest.fixture(autouse=True)
def _without_settings_from_outside(monkeypatch, tmp_path):
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ended(capsys):
    """Run the program; its exit code, and its lines on standard error."""

    def run(*arguments, **replaced):
        code = program.main(list(arguments), **replaced)
        return code, capsys.readouterr().err.splitlines()

    return run


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_help_of_each_command_has_an_example(command):
    shown = CliRunner().invoke(program.app, [*command, "--help"])
    assert shown.exit_code == exits.OK
    assert f"Example: clipper-stream {command[0]}" in " ".join(shown.output.split())


@pytest.mark.parametrize("command", [(), *COMMANDS], ids=" ".join)
def test_the_help_names_no_file_that_only_the_repository_has(command):
    shown = CliRunner().invoke(program.app, [*command, "--help"]).output
    assert [name for name in ("examples/", "docs/", "benchmarks/", "deploy/") if name in shown] == []


def test_the_help_names_every_command_and_exit_code():
    shown = CliRunner().invoke(program.app, ["--help"]).output
    assert all(f"  {command[0]} " in shown for command in COMMANDS)
    assert "0 done, 1 failed, 2 wrong usage, 3 wrong setup" in shown


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


def test_the_version_is_that_of_the_distribution(capsys):
    assert program.main(["--version"]) == exits.OK
    assert capsys.readouterr().out.startswith("clipper-stream 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("frobnicate",), "No such command 'frobnicate'"),
        (("predict", "sums"), "Missing argument"),
        (("predict", "sums", "[1,"), "'[1,' is no JSON"),
        (("feedback", "0-1"), "exactly one of --label, --loss and --reward"),
        (("feedback", "0-1", "--label", "1", "--loss", "0"), "exactly one of --label, --loss and --reward"),
        (("feedback", "0-1", "--loss", "2"), "2.0 is not in the range 0<=x<=1"),
        (("selection", "restore", "sums"), "exactly one of --revision, --from and --undo"),
        (("selection", "restore", "sums", "--undo", "--revision", "2"), "exactly one of --revision, --from and --undo"),
        (("topics", "list", "--set", "router.processes"), "write SECTION.KEY=VALUE"),
        (("model", "deploy", "svm:2", "-a", "digits", "--stage", "sunny"), "'sunny' is not one of"),
        (("model", "deploy", "svm:2", "-a", "digits", "--shape", "8x8"), "--shape 8x8: write numbers with commas"),
        (("model", "canary", "svm:2"), "Missing option '--share'"),
        (("application", "update", "digits", "--field", "loss"), "--field loss: write KEY=VALUE"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_says_what_is_wrong(ended, arguments, said):
    code, lines = ended(*arguments)
    assert code == exits.USAGE
    assert said in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("up",), "error: clipper.toml: No such file or directory; give the path of a clipper.toml"),
        (("apply", "--config", "x.toml"), "error: x.toml: No such file or directory; give the path of a clipper.toml"),
        (
            ("topics", "list"),
            f"error: {NO_ADDRESS}",
        ),
        (
            ("topics", "list", "--bootstrap", "a:1", "--set", "kafka.username=ada"),
            "error: KAFKA_SASL_PASSWORD is not set: KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD go together",
        ),
        (("up", "--log-level", "loud"), "error: log level 'loud': use one of debug, info, warning, error"),
    ],
)
def test_a_wrong_setup_ends_with_3_and_one_line(ended, arguments, said):
    assert ended(*arguments) == (exits.SETUP, [said])


def test_each_problem_of_a_configuration_has_its_line(ended, tmp_path):
    (tmp_path / "clipper.toml").write_text('[[application]]\nname = "a"\nmodels = ["b:1", "c:1"]\n')
    code, lines = ended("up")
    assert code == exits.SETUP
    assert [line.startswith("error: clipper.toml: application 'a': model") for line in lines] == [True, True]


def test_a_defect_ends_with_1_and_keeps_its_traceback(ended):
    def broken(arguments):
        raise ZeroDivisionError("no such luck")

    code, lines = ended("up", program=broken)
    assert code == exits.FAILURE
    assert "ZeroDivisionError: no such luck" in lines[-2]


def test_an_interrupt_ends_with_130_and_no_traceback(ended):
    def interrupted(arguments):
        raise KeyboardInterrupt

    assert ended("up", program=interrupted) == (exits.INTERRUPTED, [])


def test_a_kafka_that_does_not_answer_is_named_in_one_line(ended):
    code, lines = ended("predict", "sums", "[1]", "--bootstrap", "127.0.0.1:1")
    assert code == exits.SETUP
    assert "127.0.0.1:1" in lines[-1]


def test_an_input_can_come_from_standard_input():
    shown = CliRunner().invoke(program.app, ["predict", "sums", "-", "--bootstrap", "127.0.0.1:1"], input="[1, 2")
    assert (shown.exit_code, "'[1, 2' is no JSON" in shown.output) == (exits.USAGE, True)
