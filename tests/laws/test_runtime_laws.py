"""Laws of every registered runtime: what it may read, that no file runs code without a permission, and that its
models keep what a host relies on, as the model development kit finds it.
"""

import hashlib
import os
import pickle
import re
import shutil
import sys

import joblib
import pytest
import skops.io
from builders.boosters import CLASSES, TWO, X, trained
from builders.pickles import Canary
from sklearn.linear_model import LogisticRegression
from stub_server import StubServer, serving

from clipper_stream.errors import ModelNotLoaded, UnknownName, install_command
from clipper_stream.models.registry import RUNTIMES, check_declared, file_digest, load_model
from clipper_stream.models.runtimes import oip_http
from clipper_stream.models.runtimes.model_files import FileRules, FileRuntime
from clipper_stream.models.testing import assert_model

OF_FILES = {name: runtime for name, runtime in RUNTIMES.items() if isinstance(runtime, FileRuntime)}
UNPICKLING = ["joblib", "mlflow"]
ESTIMATOR = LogisticRegression().fit(X, TWO)
PERMITTED = FileRules(unpickle=True)
LIBRARIES = {
    "sklearn": ["sklearn", "skops.io"],
    "joblib": ["joblib"],
    "onnx": ["onnxruntime"],
    "mlflow": ["mlflow.pyfunc", "pandas"],
    "lightgbm": ["lightgbm"],
    "xgboost": ["xgboost"],
    "oip": ["urllib3"],
}
"""What each runtime imports when it loads a model."""
EXTRAS = {"joblib": "sklearn"}
"""Optional extras that are not named like their runtime."""
ELSEWHERE = "http://127.0.0.1:1/v2/models/a"
of_files = pytest.mark.parametrize("name", OF_FILES)


@pytest.fixture
def written(tmp_path):
    """Writes a model file; gives its path and digest."""

    def write(content):
        (tmp_path / "model").write_bytes(content)
        return str(tmp_path / "model"), hashlib.sha256(content).hexdigest()

    return write


@pytest.fixture(params=[0, 2, pickle.HIGHEST_PROTOCOL])
def pickled(request, tmp_path, written):
    """The path and digest of a pickle, and the folder that is there once it is unpickled."""
    return *written(pickle.dumps(Canary(tmp_path / "canary"), request.param)), tmp_path / "canary"


@of_files
def test_a_pickle_does_not_run_without_a_permission(name, pickled):
    uri, digest, canary = pickled
    with pytest.raises(ModelNotLoaded):
        load_model(name, uri, digest, {})
    assert not canary.exists()


def test_the_runtimes_that_unpickle_are_these():
    assert sorted(name for name, runtime in RUNTIMES.items() if runtime.UNPICKLES) == UNPICKLING
    assert {name for name, runtime in RUNTIMES.items() if runtime.NEEDS_DIGEST} == OF_FILES.keys()


@pytest.mark.parametrize("name", UNPICKLING)
def test_no_manifest_permits_itself_to_unpickle(name, pickled):
    uri, digest, canary = pickled
    for read in (load_model, check_declared):
        for parameters in ({}, {"unpickle": True}, {"trusted": ["os.mkdir"]}):
            with pytest.raises(ModelNotLoaded, match=r"set \[models\] unpickle = true"):
                read(name, uri, digest, parameters, allowed=[uri])
    assert not canary.exists()


@of_files
def test_a_file_has_the_digest_that_was_declared_before_it_is_looked_at(name, pickled):
    uri, digest, canary = pickled
    for declared, said in ((None, f'add sha256 = "{digest}"'), ("0" * 64, f"has sha256 {digest}")):
        with pytest.raises(ModelNotLoaded, match=said):
            load_model(name, uri, declared, {}, files=PERMITTED)
    with pytest.raises(ModelNotLoaded, match="has no sha256"):
        check_declared(name, uri, None, {}, [uri], PERMITTED)
    check_declared(name, uri, digest, {}, [uri], PERMITTED)
    assert file_digest(name, uri) == digest
    assert not canary.exists()
    with pytest.raises(ModelNotLoaded):
        load_model(name, uri, digest, {}, files=PERMITTED)
    assert canary.exists() is (name == "joblib"), "the others do not unpickle, or take archives"


@of_files
def test_a_file_outside_of_what_is_allowed_is_not_read_and_one_that_is_not_there_is_explained(name, tmp_path):
    allowed = [str(tmp_path / "models"), "acme.models"]
    for uri in ("/dev/zero", str(tmp_path / "models/../secret"), "s3://acme/models", "acme.models"):
        with pytest.raises(ModelNotLoaded, match="outside of what this process may load"):
            load_model(name, uri, "0" * 64, {}, allowed=allowed, files=PERMITTED)
    with pytest.raises(ModelNotLoaded, match="put it where the model runs"):
        load_model(name, str(tmp_path / "models/none"), "0" * 64, {}, allowed=allowed, files=PERMITTED)


def test_an_unknown_runtime_is_answered_with_those_that_exist():
    with pytest.raises(UnknownName, match=f"'pickle': use one of {', '.join(sorted(RUNTIMES))}"):
        load_model("pickle", "x")


KNOWN = {name: runtime.parameters for name, runtime in OF_FILES.items()} | {"oip": oip_http.PARAMETERS}
REFUSED: dict[str, list] = {
    "threads": [0, 1025, True, "2"],
    "threshold": [-0.1, 1.1, True, "0.5"],
    "timeout_s": [0, 3601, True, "5"],
    "max_response_mib": [0.5, 1025, True],
    "labels": ["ab", 5, [None]],
    "trusted": ["numpy", True, [1]],
    "confidence": [1, "true"],
    **{name: ["", 7, ["a"]] for name in ("output", "prepare", "input", "content_type", "token_env")},
}
"""Values that no runtime takes, by the parameter."""


@pytest.mark.parametrize("name", KNOWN)
def test_a_parameter_that_a_runtime_does_not_know_or_take_is_refused(name, written):
    uri, digest = written(b"no model") if name in OF_FILES else (ELSEWHERE, None)
    with pytest.raises(ModelNotLoaded, match=f"parameter 'no_such' of the runtime {name}: (use one of|there is none)"):
        load_model(name, uri, digest, {"no_such": 1}, files=PERMITTED)
    for parameter, value in [(each, value) for each in KNOWN[name] for value in REFUSED[each]]:
        with pytest.raises(ModelNotLoaded, match=rf"{parameter} is .*, give "):
            load_model(name, uri, digest, {parameter: value}, files=PERMITTED)


@pytest.mark.parametrize(("name", "library"), [(name, each) for name in LIBRARIES for each in LIBRARIES[name]], ids=str)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(name, library, written, monkeypatch):
    uri, digest = written(b"no model") if name in OF_FILES else (ELSEWHERE, None)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModelNotLoaded, match=re.escape(install_command(EXTRAS.get(name, name)))):
        load_model(name, uri, digest, {}, files=PERMITTED)


def write_onnx(path):
    skl2onnx = pytest.importorskip("skl2onnx", reason="what converts to ONNX is not installed")
    converted = skl2onnx.to_onnx(LogisticRegression().fit(X, CLASSES), X[:1], options={"zipmap": False})
    path.write_bytes(converted.SerializeToString())


def write_mlflow(path):
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow.pyfunc

    class Sums(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
        def predict(self, context, model_input, params=None):
            return model_input.sum(axis=1)

    mlflow.pyfunc.save_model(str(path.parent / "in/sums"), python_model=Sums(), pip_requirements=["numpy"])
    shutil.move(shutil.make_archive(str(path), "zip", path.parent / "in"), path)


MAKERS = {
    "sklearn": lambda path: skops.io.dump(ESTIMATOR, path),
    "joblib": lambda path: joblib.dump(ESTIMATOR, path),
    "onnx": write_onnx,
    "mlflow": write_mlflow,
    "lightgbm": lambda path: trained("lightgbm", path, CLASSES, objective="multiclass", num_class=3),
    "xgboost": lambda path: trained("xgboost", path),
}
PARAMETERS = {name: {"output": "probabilities"} for name in ("onnx", "lightgbm", "xgboost")}


@pytest.fixture
def model_file(name, tmp_path, monkeypatch):
    """A file of this runtime's, where its libraries are installed."""
    monkeypatch.chdir(tmp_path)  # MLflow copies the uv.lock of the folder that it is run in
    for library in LIBRARIES[name]:
        pytest.importorskip(library, reason=f"{library} is not installed")
    MAKERS[name](tmp_path / "model.ubj")  # as XGBoost wants to have it called
    return tmp_path / "model.ubj"


def keeps_every_law(runtime, uri, parameters):
    # a model and no URI: another process would import each framework once more, which takes seconds
    model = load_model(runtime, uri, file_digest(runtime, uri), parameters, files=PERMITTED)
    assert_model(model, X[:8].tolist(), shape=[4])


@pytest.mark.filterwarnings("ignore")
@of_files
def test_a_model_of_each_runtime_of_files_keeps_every_law(name, model_file):
    keeps_every_law(name, str(model_file), PARAMETERS.get(name, {}))


def test_a_function_and_a_model_on_a_server_keep_every_law():
    assert RUNTIMES.keys() - OF_FILES.keys() == {"python", "oip"}
    keeps_every_law("python", "clipper_agents.examples.models:sum_of_row", {})
    with serving(StubServer()) as stub:
        keeps_every_law("oip", stub.url, {"timeout_s": 60})


@pytest.mark.filterwarnings("ignore")
@of_files
def test_what_is_cut_off_or_no_model_is_refused_with_how_one_is_written(name, model_file, written):
    whole = model_file.read_bytes()
    for content in (b"no model", *(whole[:size] for size in (0, 1, 12, len(whole) // 4, len(whole) // 2))):
        with pytest.raises(ModelNotLoaded, match=re.escape(OF_FILES[name].advice)):
            load_model(name, *written(content), {}, files=PERMITTED)
