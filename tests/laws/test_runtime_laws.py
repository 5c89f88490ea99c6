"""Laws of every registered runtime: what it may read, that no file runs code without a permission, and that its
models keep what a host relies on, as the model development kit finds it.
"""

import hashlib
import os
import pickle
import shutil
import sys

import pytest
import skops.io
from builders.boosters import CLASSES, TWO, X, lightgbm_file, xgboost_file
from builders.pickles import Canary
from sklearn.linear_model import LogisticRegression
from stub_server import StubServer, serving

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.registry import RUNTIMES, check_declared, file_digest, load_model
from clipper_stream.models.runtimes.model_files import FileRules
from clipper_stream.models.testing import assert_model

OF_FILES = sorted(name for name, runtime in RUNTIMES.items() if runtime.NEEDS_DIGEST)
UNPICKLING = {"joblib", "mlflow", "torch_export"}
LIBRARIES = {
    "sklearn": ["sklearn", "skops.io"],
    "joblib": ["joblib"],
    "onnx": ["onnxruntime"],
    "mlflow": ["mlflow.pyfunc", "pandas"],
    "torch": ["torch"],
    "torch_export": ["torch"],
    "lightgbm": ["lightgbm"],
    "xgboost": ["xgboost"],
}
"""What each runtime of files imports when it loads a model."""
EXTRAS = {"joblib": "sklearn", "torch_export": "torch"}
"""Optional extras that are not named like their runtime."""


@pytest.fixture
def canary(tmp_path):
    """The path of a folder that is there once something is unpickled."""
    return tmp_path / "canary"


@pytest.fixture
def written(tmp_path, canary):
    """Writes a model file; gives its path and digest."""

    def write(content):
        path = tmp_path / "model"
        path.write_bytes(content)
        return str(path), hashlib.sha256(content).hexdigest()

    return write


def test_the_runtimes_that_unpickle_are_these():
    assert {name for name, runtime in RUNTIMES.items() if runtime.UNPICKLES} == UNPICKLING
    assert all(RUNTIMES[name].NEEDS_DIGEST for name in UNPICKLING)


@pytest.mark.parametrize("name", OF_FILES)
@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_a_pickle_does_not_run_without_a_permission(name, protocol, written, canary):
    uri, digest = written(pickle.dumps(Canary(canary), protocol))
    with pytest.raises(ModelNotLoaded):
        load_model(name, uri, digest, {})
    assert not canary.exists()


@pytest.mark.parametrize("name", OF_FILES)
def test_a_permission_does_not_make_a_runtime_unpickle_that_does_not(name, written, canary):
    uri, digest = written(pickle.dumps(Canary(canary)))
    with pytest.raises(ModelNotLoaded):
        load_model(name, uri, digest, {}, files=FileRules(unpickle=True))
    assert canary.exists() is (name == "joblib"), "the others that unpickle take archives"


@pytest.mark.parametrize("name", OF_FILES)
def test_a_file_has_the_digest_that_was_declared_before_it_is_looked_at(name, written, canary):
    uri, digest = written(pickle.dumps(Canary(canary)))
    rules = FileRules(unpickle=True)
    for declared, said in ((None, f'add sha256 = "{digest}"'), ("0" * 64, f"has sha256 {digest}")):
        with pytest.raises(ModelNotLoaded, match=said):
            load_model(name, uri, declared, {}, files=rules)
    with pytest.raises(ModelNotLoaded, match="has no sha256"):
        check_declared(name, uri, None, {}, [uri], rules)
    check_declared(name, uri, digest, {}, [uri], rules)
    assert file_digest(name, uri) == digest
    assert not canary.exists()


@pytest.mark.parametrize("name", OF_FILES)
def test_a_file_outside_of_what_is_allowed_is_not_read(name, tmp_path):
    rules = FileRules(unpickle=True)
    for uri in ("/dev/zero", str(tmp_path / "models/../secret"), "s3://acme/models", "acme.models"):
        with pytest.raises(ModelNotLoaded, match="outside of what this process may load"):
            load_model(name, uri, "0" * 64, {}, allowed=[str(tmp_path / "models"), "acme.models"], files=rules)


@pytest.mark.parametrize("name", OF_FILES)
def test_a_file_that_is_not_there_is_explained(name, tmp_path):
    with pytest.raises(ModelNotLoaded, match="put it where the model runs"):
        load_model(name, str(tmp_path / "none"), "0" * 64, {}, files=FileRules(unpickle=True))


@pytest.mark.parametrize("name", OF_FILES)
def test_a_parameter_that_a_runtime_does_not_know_is_refused(name, written):
    uri, digest = written(b"no model")
    with pytest.raises(ModelNotLoaded):
        load_model(name, uri, digest, {"no_such_parameter": 1}, files=FileRules(unpickle=True))


@pytest.mark.parametrize(
    ("name", "library"), [(name, library) for name in OF_FILES for library in LIBRARIES[name]], ids=str
)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(name, library, written, monkeypatch):
    uri, digest = written(b"no model")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModelNotLoaded, match=rf"pip install 'clipper-stream\[{EXTRAS.get(name, name)}\]'"):
        load_model(name, uri, digest, {}, files=FileRules(unpickle=True))


def of_python(tmp_path):
    yield "clipper_agents.examples.models:sum_of_row", {}


def of_sklearn(tmp_path):
    path = tmp_path / "model.skops"
    skops.io.dump(LogisticRegression().fit(X, TWO), path)
    yield str(path), {}


def of_onnx(tmp_path):
    skl2onnx = pytest.importorskip("skl2onnx", reason="what converts to ONNX is not installed")
    converted = skl2onnx.to_onnx(LogisticRegression().fit(X, CLASSES), X[:1], options={"zipmap": False})
    (tmp_path / "model.onnx").write_bytes(converted.SerializeToString())
    yield str(tmp_path / "model.onnx"), {"output": "probab"}


def of_joblib(tmp_path):
    import joblib

    joblib.dump(LogisticRegression().fit(X, TWO), tmp_path / "model.joblib")
    yield str(tmp_path / "model.joblib"), {}


def of_mlflow(tmp_path):
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    pyfunc = pytest.importorskip("mlflow.pyfunc", reason="the extra mlflow is not installed")

    class Sums(pyfunc.PythonModel):  # type: ignore[name-defined]
        def predict(self, context, model_input, params=None):
            return model_input.sum(axis=1)

    pyfunc.save_model(str(tmp_path / "in/sums"), python_model=Sums(), pip_requirements=["numpy"])
    yield shutil.make_archive(str(tmp_path / "sums"), "zip", tmp_path / "in"), {}


def of_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="the extra torch is not installed")
    torch.jit.trace(torch.nn.Linear(4, 3).eval(), torch.zeros(1, 4)).save(str(tmp_path / "model.pt"))
    yield str(tmp_path / "model.pt"), {}


def of_torch_export(tmp_path):
    torch = pytest.importorskip("torch", reason="the extra torch is not installed")
    shapes = ({0: torch.export.Dim("rows")},)
    exported = torch.export.export(torch.nn.Linear(4, 3).eval(), (torch.zeros(3, 4),), dynamic_shapes=shapes)
    torch.export.save(exported, tmp_path / "model.pt2")
    yield str(tmp_path / "model.pt2"), {}


def of_lightgbm(tmp_path):
    pytest.importorskip("lightgbm", reason="the extra lightgbm is not installed")
    yield lightgbm_file(tmp_path, objective="multiclass", labels=CLASSES, num_class=3)[0], {"output": "probabilities"}


def of_xgboost(tmp_path):
    pytest.importorskip("xgboost", reason="the extra xgboost is not installed")
    yield xgboost_file(tmp_path)[0], {"output": "probabilities"}


def of_oip(tmp_path):
    pytest.importorskip("urllib3", reason="the extra oip is not installed")
    with serving(StubServer()) as stub:
        yield stub.url, {"timeout_s": 60}


MAKERS = {
    "python": of_python,
    "sklearn": of_sklearn,
    "onnx": of_onnx,
    "joblib": of_joblib,
    "mlflow": of_mlflow,
    "torch": of_torch,
    "torch_export": of_torch_export,
    "lightgbm": of_lightgbm,
    "xgboost": of_xgboost,
    "oip": of_oip,
}


def test_a_model_of_every_registered_runtime_is_made_here():
    assert MAKERS.keys() == RUNTIMES.keys()


@pytest.mark.runtime
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("runtime", MAKERS)
def test_a_model_of_each_runtime_keeps_every_law(runtime, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MLflow copies the uv.lock of the folder that it is run in
    making = MAKERS[runtime](tmp_path)
    uri, parameters = next(making)
    files = FileRules(unpickle=RUNTIMES[runtime].UNPICKLES)
    # a model and no URI: another process would import each framework once more, which takes seconds
    model = load_model(runtime, uri, file_digest(runtime, uri), parameters, files=files)
    assert_model(model, X[:8].tolist(), shape=[4])
    assert next(making, None) is None
