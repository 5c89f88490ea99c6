"""`predict --http` and `feedback --http`: what they print, with which code they end, and what they import."""

import json
import subprocess
import sys

import pytest
from stub_server import Answer, StubServer, serving

from clipper_agents import exits
from clipper_agents.cli import main as program
from clipper_stream.errors import install_command

PREDICTION = {"query_id": "7", "application": "sums", "output": 6.0, "confidence": 1.0}


@pytest.fixture
def ended(capsys, monkeypatch, tmp_path):
    """Run the program against a gateway that gives this answer: exit code, standard output and error, requests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)

    def run(answer, *arguments, key=""):
        monkeypatch.setenv("CLIPPER_API_KEY", key)
        with serving(StubServer(metadata=answer)) as stub:
            code = program.main([*arguments, "--http", stub.root])
        return (code, *capsys.readouterr(), stub.asked)

    return run


def test_a_prediction_is_printed_as_a_line_of_json(ended):
    options = ["--context", "ada", "--model", "sum:1", "--feature", "0.5", "--deadline-ms", "50"]
    code, out, err, (asked,) = ended(Answer(PREDICTION), "predict", "sums", "[1, 2, 3]", *options, key="a key")
    assert (code, json.loads(out)["output"], err) == (exits.OK, 6.0, "")
    assert (asked.path, asked.headers["x-api-key"]) == ("/v1/applications/sums/predict", "a key")
    said = {"context": "ada", "deadline_ms": 50, "models": ["sum:1"], "features": [0.5], "strict": False}
    assert asked.body == {"query_id": asked.body["query_id"], "input": [1, 2, 3], **said}


def test_a_default_that_is_the_querys_own_fault_ends_with_5(ended):
    default = {"default": True, "reason": "invalid_input", "explanation": "no row of numbers"}
    code, out, err, _ = ended(Answer(PREDICTION | default), "predict", "sums", '"a"')
    assert (code, json.loads(out)["default"], err) == (exits.REFUSED, True, "error: no row of numbers\n")


@pytest.mark.parametrize(("status", "code"), [(404, exits.REFUSED), (401, exits.SETUP), (504, exits.FAILURE)])
def test_an_answer_that_is_none_is_one_line_with_the_code_of_its_kind(ended, status, code):
    answer = Answer({"error": "no such luck"}, status=status)
    found, out, err, _ = ended(answer, "predict", "sums", "[1]", key="the-secret-key")
    assert (found, out, err) == (code, "", f"error: the gateway answered {status}: no such luck\n")


def test_feedback_is_given_through_the_gateway(ended):
    code, out, err, (asked,) = ended(Answer({"accepted": 1}, status=202), "feedback", "2@17", "--label", "cat")
    assert (code, out, err) == (exits.OK, "", "")
    assert (asked.path, asked.body) == ("/v1/feedback", {"query_id": "2@17", "label": "cat"})
    assert "x-api-key" not in asked.headers


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("feedback", "2@17", "--loss", "0", "--wait", "1"), "--wait needs Kafka: leave out --http"),
        (("feedback", "2@17"), "exactly one of --label, --loss and --reward"),
        (("predict", "sums", "[1]", "--bootstrap", "a:1"), "--http asks a gateway, --bootstrap asks Kafka"),
    ],
)
def test_options_that_exclude_each_other_are_a_wrong_usage(ended, arguments, said):
    code, _, err, asked = ended(Answer(), *arguments)
    assert (code, asked) == (exits.USAGE, [])
    assert said in " ".join(err.split())


def test_a_gateway_that_is_not_there_is_named_in_one_line(ended, capsys):
    code = program.main(["predict", "sums", "[1]", "--http", "http://127.0.0.1:1", "--timeout-s", "0.3"])
    (line,) = capsys.readouterr().err.splitlines()
    assert code == exits.SETUP
    assert line.startswith("error: the gateway at http://127.0.0.1:1 does not answer")


LIGHT = """
import sys
import clipper_stream.http
heavy = {"aiokafka", "faust", "mode", "rocksdict", "xxhash", "numpy", "clipper_agents"} & sys.modules.keys()
sys.exit(f"imported {heavy}" if heavy else 0)
"""
WITHOUT_HTTPX = """
import sys
from importlib.machinery import PathFinder

class WithoutHttpx:
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] == "httpx" else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutHttpx()
from clipper_agents.cli.main import main

sys.exit(main(["predict", "sums", "[1]", "--http", "http://127.0.0.1:1"]))
"""


def ended_with(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stderr


def test_the_client_imports_no_kafka_no_faust_and_no_rocksdb():
    assert ended_with(LIGHT) == (0, "")


def test_the_command_names_the_extra_that_it_lacks():
    assert ended_with(WITHOUT_HTTPX) == (3, f"error: this command needs httpx: {install_command('http')}\n")
