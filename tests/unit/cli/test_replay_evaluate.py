import json

import pytest
from builders.known_truth import log_of
from typer.testing import CliRunner

from clipper_agents.cli.main import app
from clipper_stream.evaluation.log.parquet import FileFacts, writing

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "day.parquet"
    with writing(path, FileFacts(application="digits", loss_kind="zero_one")) as writer:
        writer.write(log_of(2_000)[0])
    return path


def run(file, *arguments: str):
    command = ["replay", "evaluate", "digits", "--log", str(file), "--offline", *arguments]
    return CliRunner().invoke(app, command)


def test_a_line_a_candidate_and_a_page(file, tmp_path):
    done = run(file, "--candidate", "b:1", "--candidate", "split", "--report", str(tmp_path / "page.html"))
    assert done.exit_code == 0, done.output
    assert "model b:1" in done.output
    assert "would have lost" in done.output.replace("\n", " ")
    assert "model b:1" in (tmp_path / "page.html").read_text()


def test_json_for_programs_on_standard_output_and_in_a_file(file, tmp_path):
    done = run(file, "--candidate", "b:1", "--estimator", "snips", "--json", "--save", str(tmp_path / "found.json"))
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "found.json").read_text())
    assert found["candidates"][0]["headline"] == "snips"
    assert 0.0 < found["candidates"][0]["estimates"]["snips"]["value"] < 1.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--candidate", "exp5"], "did you mean"),
        (["--candidate", "b:1", "--estimator", "magic"], "estimator 'magic'"),
        (["--candidate", "b:1", "--since", "1d"], "--log is read whole"),
        (["--candidate", "b:1", "--confidence", "1.5"], "confidence"),
        ([], "candidate"),
    ],
)
def test_what_is_wrong_is_said(file, arguments, said):
    done = run(file, *arguments)
    assert done.exit_code != 0
    assert said in f"{done.output}{done.exception}"


def test_decisions_of_another_application_are_refused(file):
    done = CliRunner().invoke(
        app, ["replay", "evaluate", "letters", "--log", str(file), "--offline", "--candidate", "b:1"]
    )
    assert done.exit_code == 2
    assert "not of letters" in done.output.replace("\n", " ")
