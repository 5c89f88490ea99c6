"""Laws of every registered runtime: what it may read, and that no file runs code without a permission."""

import hashlib
import os
import pickle

import pytest

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.files import FileRules
from clipper_stream.models.loading import RUNTIMES, check_declared, file_digest, load_model

OF_FILES = sorted(name for name, runtime in RUNTIMES.items() if runtime.NEEDS_DIGEST)
UNPICKLING = {"joblib", "mlflow", "torch_export"}


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


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
