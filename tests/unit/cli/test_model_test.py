import hashlib
import json
import sys

import joblib
import msgspec
import numpy as np
import pandas as pd
import pytest
import skops.io
import tomli_w
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from clipper_agents import exits
from clipper_agents.cli.model_target import manifest_of, read_samples, read_target
from clipper_agents.settings import load_settings
from clipper_stream.errors import InvalidSetting
from clipper_topics.manifests import ColumnSpec, InputSpec, ModelManifest

SUM = "clipper_agents.examples.models:sum_of_row"
FLAKY = "clipper_agents.examples.models:flaky"
QUICK = "--random"
"""Without another process, which is started for what is not random."""


@pytest.fixture
def ended(ran, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(target, options=""):
        code, out, err = ran("model", "test", target, *options.split())
        return code, " ".join(out.split()), err

    return run


def test_a_good_model_ends_with_0_and_tables(ended):
    code, text, _ = ended(SUM, "--shape 4")
    assert code == exits.OK
    for said in (
        "every law that was looked at is kept",
        "a batch is as row by row",
        "another process has the same output kept",
    ):
        assert said in text


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        (FLAKY, f'--shape 4 --parameters {{"failing_ratio":0.5}} {QUICK}', "cannot stand; correct the model"),
        ("acme.nothing:here", "--shape 4", "No module named 'acme'"),
        ("a.joblib", f"--shape 1 {QUICK}", "set [models] unpickle = true"),
    ],
)
def test_a_bad_model_ends_with_1_and_says_what_to_do(ended, target, options, said):
    joblib.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), "a.joblib")
    code, text, _ = ended(target, options)
    assert (code, said in text, "BROKEN" in text) == (exits.FAILURE, True, True)


def test_a_module_of_the_working_directory_is_found_as_by_up(ended, tmp_path):
    (tmp_path / "models_beside_the_user.py").write_text("def brightness(rows):\n    return rows.mean(axis=1)\n")
    assert ended("models_beside_the_user:brightness", f"--shape 2 {QUICK}")[0] == exits.OK


def test_the_report_is_json_for_programs(ended):
    code, text, _ = ended(SUM, f"--shape 2,2 --json {QUICK}")
    report = json.loads(text)
    assert (code, report["kept"]) == (exits.OK, True)
    assert {"law", "state", "found"} == set(report["findings"][0])


def test_samples_of_a_file_are_asked_about_and_those_that_nobody_can_guess_are_asked_for(ended, tmp_path):
    (tmp_path / "rows.jsonl").write_text("[1, 2, 3]\n[4, 5, 6]\n[7, 8, 9]\n")
    code, text, _ = ended(SUM, f"--rows rows.jsonl {QUICK}")
    assert (code, "3 rows answered in one call" in text) == (exits.OK, True)


@pytest.mark.parametrize("options", ["--shape a", "--parameters {", "--parameters []"])
def test_options_of_another_form_are_wrong_usage(ended, options):
    assert ended(SUM, options)[0] == exits.USAGE


def test_a_file_that_is_unpickled_is_tested_where_the_configuration_permits_it(ended, tmp_path):
    joblib.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), tmp_path / "a.joblib")
    digest = hashlib.sha256((tmp_path / "a.joblib").read_bytes()).hexdigest()
    model = f'[[model]]\nname = "a"\nruntime = "joblib"\nuri = "a.joblib"\nsha256 = "{digest}"\n'
    (tmp_path / "clipper.toml").write_text(f"[models]\nunpickle = true\n{model}input = {{ shape = [1] }}\n")
    code, text, _ = ended("clipper.toml")
    assert (code, "another process has the same output kept" in text) == (exits.OK, True)


# --- targets ----------------------------------------------------------------------------------------------------------
def test_a_manifest_says_all_of_it_and_options_say_it_instead(tmp_path):
    manifest = {"name": "sum", "version": "2", "uri": SUM, "deterministic": False} | {
        "input": {"dtype": "int64", "shape": [3]},
        "batch": {"target_ms": 7.0, "max_rows": 64},
    }
    (tmp_path / "model.toml").write_text(tomli_w.dumps({"model": [manifest]}))
    found, _ = read_target("model.toml", None, {"dtype": "float32", "shape": None})
    assert found == msgspec.convert(manifest | {"input": {"dtype": "float32", "shape": [3]}}, ModelManifest)


def test_a_model_of_a_configuration_is_named(tmp_path):
    tables = f'[[model]]\nname = "a"\nuri = "{SUM}"\n[[model]]\nname = "b"\nruntime = "sklearn"\nuri = "b.skops"\n'
    (tmp_path / "clipper.toml").write_text(tables)
    path = str(tmp_path / "clipper.toml")
    assert read_target(path, "a:1", {})[0].uri == SUM
    assert read_target(path, "b:1", {})[0].uri == str(tmp_path / "b.skops")
    for ref in (None, "c:1"):
        with pytest.raises(InvalidSetting, match="declared: a:1, b:1: name one with --model"):
            read_target(path, ref, {})


RUNTIMES = {
    "python": ["acme.models:f"],
    "sklearn": ["models/a.skops"],
    "onnx": ["a.onnx", "s3://acme/a.onnx"],
    "joblib": ["a.joblib"],
    "lightgbm": ["a.txt"],
    "xgboost": ["a.ubj", "a.json"],
    "oip": ["http://h/v2/models/a", "https://h:8080/v2/models/a"],
}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_runtime_is_told_by_the_form_of_the_target(runtime):
    for text in RUNTIMES[runtime]:
        assert read_target(text, None, {})[0].runtime == runtime
        assert read_target(text, None, {"runtime": "other"})[0].runtime == "other"


# --- what a file says itself ------------------------------------------------------------------------------------------
def test_what_a_file_was_fitted_with_is_tried_shown_and_written_down(ended, tmp_path):
    rows = pd.DataFrame({"age": [20.0, 30, 40, None], "plan": ["pro", "basic", None, "pro"]})
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer([("numbers", SimpleImputer(), ["age"]), ("texts", texts, ["plan"])])
    (tmp_path / "models").mkdir()
    skops.io.dump(make_pipeline(columns, LogisticRegression()).fit(rows, [0, 1, 1, 0]), "models/Churn_1.skops")
    (tmp_path / "rows.jsonl").write_text('{"plan": "pro", "age": 41}\n{}\n[22.5, "basic"]\n')
    code, said, err = ended("models/Churn_1.skops", f"--rows rows.jsonl --write models/clipper.toml {QUICK}")
    assert (code, err) == (
        exits.OK, "wrote models/clipper.toml: serve it with `clipper-stream up --config models/clipper.toml`\n"
    )  # fmt: skip
    assert "age: number, may be missing plan: text, may be missing" in said
    settings = load_settings(tmp_path / "models/clipper.toml", {})
    (application,), (model,) = settings.applications, settings.models
    row = InputSpec(
        dtype="table", columns=[ColumnSpec(name="age"), ColumnSpec(name="plan", dtype="text")], missing=True
    )
    assert (application.input, application.models, model.input) == (row, ["churn-1:1"], row)
    assert (model.runtime, model.uri) == ("sklearn", str(tmp_path / "models/Churn_1.skops"))


def test_a_project_begins_with_a_model_of_ones_own(ran, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    frame = pd.DataFrame({"age": [20.0, 30, 40, 50], "spent": [1.0, 5, 2, 4]})
    skops.io.dump(RandomForestClassifier(2).fit(frame, [0, 1, 0, 1]), "Churn_1.skops")
    words = ["init", "mine", "--model", "Churn_1.skops"]
    code, _, err = ran(*words)
    assert (code, "not trusted: sklearn.tree._tree.Tree" in err) == (exits.SETUP, True)
    code, out, _ = ran(*words, "--parameters", '{"trusted": ["sklearn.tree._tree.Tree"]}')
    assert (code, "wrote mine/clipper.toml: start it" in out) == (exits.OK, True)
    assert "`clipper-stream predict churn-1 INPUT_JSON`" in out
    (model,) = load_settings(tmp_path / "mine/clipper.toml", {}).models
    assert [column.name for column in model.input.columns] == ["age", "spent"]
    assert model.uri == str(tmp_path / "Churn_1.skops")
    assert not (tmp_path / "mine/my_models.py").exists()


def test_the_shape_of_a_file_is_read_from_it_unless_it_is_stated(ended):
    skops.io.dump(LogisticRegression().fit(np.eye(3), [0, 1, 1]), "a.skops")
    assert "a.skops (sklearn, float32[3])" in ended("a.skops", QUICK)[1]
    assert "X has 2 features, but LogisticRegression" in ended("a.skops", f"--shape 2 {QUICK}")[1]


# --- manifests --------------------------------------------------------------------------------------------------------
def test_a_file_has_the_runtime_of_its_name_and_the_row_of_the_application(tmp_path):
    row = InputSpec(dtype="uint8", shape=[64])
    found = manifest_of("rf:1", {"uri": "rf.skops"}, row=row)
    assert (found.runtime, found.uri, found.input) == ("sklearn", str(tmp_path / "rf.skops"), row)
    assert manifest_of("svm:2", {"uri": "m:f", "shape": None}) == ModelManifest(name="svm", version="2", uri="m:f")
    other = manifest_of("rf:1", {"uri": "rf.skops", "runtime": "joblib", "dtype": "int64"}, row=row)
    assert (other.runtime, other.input) == ("joblib", InputSpec(dtype="int64", shape=[64]))


# --- rows -------------------------------------------------------------------------------------------------------------
def test_rows_are_read_from_lines_and_from_an_array_and_what_holds_none_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(2))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n"b"\n')
    (tmp_path / "b.jsonl").write_text("[")
    assert read_samples(tmp_path / "a.npy") == [[1, 0], [0, 1]]
    assert read_samples(tmp_path / "a.jsonl") == [{"a": 1}, "b"]
    refused = {"a.parquet": "use a .npy or a .jsonl file", "none.npy": "No such file"}
    for name, said in (refused | dict.fromkeys(("b.jsonl", "objects.npy"), "cannot be read")).items():
        with pytest.raises(InvalidSetting, match=said):
            read_samples(tmp_path / name)


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (lambda: manifest_of("SVM:2", {"uri": "m:f"}), "model SVM:2: name = 'SVM': expected str of lower case"),
        (lambda: manifest_of("svm", {"uri": "m:f"}), "model svm: version = '': expected str of letters"),
        (lambda: manifest_of("svm:2", {"uri": "m:f", "shape": [2**30]}), "has 1073741824 elements"),
    ],
)
def test_a_model_that_is_none_is_refused_with_its_key(refused, said):
    with pytest.raises(InvalidSetting, match=said):
        refused()
