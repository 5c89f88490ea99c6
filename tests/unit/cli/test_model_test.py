"""`clipper-stream model test` tries a model on this machine, and ends with 0 when it can be served and 1 when not."""

import hashlib
import json
import sys

import joblib
import msgspec
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from clipper_agents import exits
from clipper_agents.cli import main as program
from clipper_agents.cli.model_target import read_samples, read_target
from clipper_stream.errors import InvalidSetting
from clipper_topics.manifests import ModelManifest

SUM = "clipper_agents.examples.models:sum_of_row"
FLAKY = "clipper_agents.examples.models:flaky"
QUICK = ("--max-rows", "1", "--random")  # --random: no other process is started


@pytest.fixture
def ended(capsys):
    def run(*arguments):
        code = program.main(["model", "test", *arguments])
        return code, capsys.readouterr()

    return run


def test_a_good_model_ends_with_0_and_tables(ended):
    code, said = ended(SUM, "--shape", "4", "--max-rows", "4")
    assert code == exits.OK
    assert "every law that was looked at is kept" in said.out
    assert "order does not matter" in said.out
    assert "another process has the same output  kept" in said.out
    assert "latency by batch size" in said.out
    assert "advice: 4 rows take" in said.out


def test_a_bad_model_ends_with_1_and_says_what_to_do(ended):
    code, said = ended(FLAKY, "--shape", "4", "--parameters", '{"failing_ratio": 0.5}', *QUICK)
    assert code == exits.FAILURE
    assert "answers every sample" in said.out
    assert "BROKEN" in said.out
    assert "that this model cannot stand; correct the model" in " ".join(said.out.split())


def test_a_module_of_the_working_directory_is_found_as_by_up(ended, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models_beside_the_user.py").write_text("def brightness(rows):\n    return rows.mean(axis=1)\n")
    assert ended("models_beside_the_user:brightness", "--shape", "2", *QUICK)[0] == exits.OK


def test_a_model_that_cannot_be_loaded_ends_with_1(ended):
    code, said = ended("acme.nothing:here", "--shape", "4")
    assert code == exits.FAILURE
    assert "No module named 'acme'" in " ".join(said.out.split())


def test_the_report_is_json_for_programs(ended):
    code, said = ended(SUM, "--shape", "2,2", "--json", *QUICK)
    report = json.loads(said.out)
    assert code == exits.OK
    assert report["kept"] is True
    assert {"law", "state", "found", "advice"} == set(report["findings"][0])
    assert [each["rows"] for each in report["latencies"]] == [1]


def test_rows_that_nobody_can_guess_are_asked_for(ended):
    code, said = ended(SUM)
    assert code == exits.SETUP
    assert "cannot be guessed: give some (--rows FILE), or the shape of one (--shape 64)" in said.err


def test_samples_of_a_file_are_asked_about(ended, tmp_path):
    (tmp_path / "rows.json").write_text("[[1, 2, 3], [4, 5, 6], [7, 8, 9]]")
    code, said = ended(SUM, "--rows", str(tmp_path / "rows.json"), *QUICK)
    assert code == exits.OK
    assert "3 rows answered in one call" in said.out


@pytest.mark.parametrize("options", [("--shape", "a"), ("--parameters", "{"), ("--parameters", "[]")])
def test_options_of_another_form_are_wrong_usage(ended, options):
    code, _ = ended(SUM, *options)
    assert code == exits.USAGE


def test_a_manifest_says_all_of_it_and_options_say_it_instead(tmp_path):
    manifest = {
        "name": "sum",
        "version": "2",
        "uri": SUM,
        "input": {"dtype": "int64", "shape": [3]},
        "batch": {"target_ms": 7.0, "max_rows": 64},
        "deterministic": False,
    }
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    found, _ = read_target(str(tmp_path / "model.json"), None, {"dtype": "float32", "shape": None})
    assert found == msgspec.convert(manifest | {"input": {"dtype": "float32", "shape": [3]}}, ModelManifest)


def test_a_model_of_a_configuration_is_named(tmp_path):
    (tmp_path / "clipper.toml").write_text(
        f'[[model]]\nname = "a"\nuri = "{SUM}"\n[[model]]\nname = "b"\nruntime = "sklearn"\nuri = "b.skops"\n'
    )
    path = str(tmp_path / "clipper.toml")
    assert read_target(path, "a:1", {})[0].uri == SUM
    assert read_target(path, "b:1", {})[0].uri == str(tmp_path / "b.skops")
    for ref in (None, "c:1"):
        with pytest.raises(InvalidSetting, match="declared: a:1, b:1: name one with --model"):
            read_target(path, ref, {})


@pytest.mark.parametrize(
    ("text", "runtime"),
    [
        ("acme.models:f", "python"),
        ("models/a.skops", "sklearn"),
        ("a.onnx", "onnx"),
        ("a.joblib", "joblib"),
        ("s3://acme/a.onnx", "onnx"),
        ("a.txt", "lightgbm"),
        ("a.ubj", "xgboost"),
        ("a.json", "xgboost"),
        ("http://h/v2/models/a", "oip"),
        ("https://h:8080/v2/models/a", "oip"),
    ],
)
def test_the_runtime_is_told_by_the_form_of_the_target(text, runtime):
    assert read_target(text, None, {})[0].runtime == runtime
    assert read_target(text, None, {"runtime": "other"})[0].runtime == "other"


def test_a_file_that_is_unpickled_is_tested_where_the_configuration_permits_it(ended, tmp_path):
    joblib.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), tmp_path / "a.joblib")
    digest = hashlib.sha256((tmp_path / "a.joblib").read_bytes()).hexdigest()
    model = f'[[model]]\nname = "a"\nruntime = "joblib"\nuri = "a.joblib"\nsha256 = "{digest}"\n'
    (tmp_path / "clipper.toml").write_text(f"[models]\nunpickle = true\n{model}input = {{ shape = [1] }}\n")
    code, said = ended(str(tmp_path / "clipper.toml"), "--max-rows", "1")
    assert code == exits.OK
    assert "another process has the same output  kept" in said.out
    code, said = ended(str(tmp_path / "a.joblib"), "--shape", "1", *QUICK)
    assert code == exits.FAILURE
    assert "set [models] unpickle = true" in " ".join(said.out.split())


def test_a_target_whose_runtime_cannot_be_told_is_refused():
    with pytest.raises(InvalidSetting, match="give --runtime"):
        read_target("models/thing", None, {})


@pytest.mark.parametrize(
    ("name", "content", "dtype", "rows"),
    [
        ("a.json", "[[1, 2], [3, 4]]", "float32", [[1, 2], [3, 4]]),
        ("a.jsonl", '{"a": 1}\n\n"b"\n', "json", [{"a": 1}, "b"]),
        ("a.csv", "1,2\n3,4.5\n", "float32", [[1, 2], [3, 4.5]]),
        ("a.csv", "one, two\nthree", "text", ["one, two", "three"]),
    ],
)
def test_rows_are_read_from_files(tmp_path, name, content, dtype, rows):
    (tmp_path / name).write_text(content)
    assert read_samples(tmp_path / name, dtype) == rows


def test_rows_are_read_from_an_array_that_holds_no_objects(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(2))
    assert read_samples(tmp_path / "a.npy", "float32") == [[1, 0], [0, 1]]
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidSetting, match="cannot be read"):
        read_samples(tmp_path / "b.npy", "float32")


@pytest.mark.parametrize(
    ("name", "content"), [("a.json", "{}"), ("a.json", "["), ("a.parquet", "[]"), ("a.csv", "x,y")]
)
def test_rows_of_another_form_are_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidSetting, match=r"\.csv"):
        read_samples(tmp_path / name, "float32")
    with pytest.raises(InvalidSetting, match="No such file"):
        read_samples(tmp_path / "none.json", "float32")
