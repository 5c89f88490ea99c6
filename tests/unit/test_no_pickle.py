"""Bytes from outside are never unpickled: wherever some are taken, a pickle that would make a file makes none."""

import io
import json
import pickle
import zipfile
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
import pytest
import rocksdict
import skops.io
from builders.pickles import Canary
from sklearn.linear_model import LogisticRegression

from clipper_agents.control.state import ControlState, RefusedRecord
from clipper_agents.router.pipeline import decode_value, partition_caches
from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.registry import file_digest, load_model
from clipper_topics import codec
from clipper_topics.codec import UndecodableRecord, UnknownFrame, decode_output, decode_request

KINDS = ["application/json", "application/msgpack", "application/x-python-pickle", "application/python-pickle", ""]


@pytest.fixture
def canary(tmp_path):
    """The path of a folder that is not there as long as nothing is unpickled."""
    path = tmp_path / "canary"
    pickle.loads(pickle.dumps(Canary(path)))
    assert path.exists(), "the payload works"
    path.rmdir()
    yield path
    assert not path.exists()


@pytest.fixture(params=[0, 2, pickle.HIGHEST_PROTOCOL])
def payload(canary, request):
    return pickle.dumps(Canary(canary), protocol=request.param)


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_is_not_unpickled(payload, kind):
    headers = [("content-type", kind.encode()), ("serializer", b"pickle")]
    for reader in (codec.queries, codec.feedback, codec.predictions, codec.applications, codec.models):
        with pytest.raises(UndecodableRecord):
            reader.decode(payload, headers)


def test_a_frame_between_our_own_processes_is_not_unpickled(payload):
    for decode, value in product((decode_request, decode_output), (payload, b"\x01" + payload)):
        with pytest.raises(UnknownFrame):
            decode(value)


def test_a_manifest_and_what_it_carries_are_not_unpickled(payload):
    state = ControlState()
    assert isinstance(state.apply(b"model/a:1", payload), RefusedRecord)
    assert isinstance(state.apply(payload, payload), RefusedRecord)
    text = payload.decode("latin1")
    content = {"name": "a", "uri": "acme:f", "parameters": {"trusted": [text], "x": text}}
    model = state.apply(b"model/a:1", json.dumps(content).encode())
    assert state.manifests.models == {"a:1": model}
    with pytest.raises(ModelNotLoaded):
        load_model("python", "acme:f", None, model.parameters, allowed=["acme"])


def test_a_value_in_the_cache_is_not_unpickled(canary, payload, tmp_path):
    """Nor is one of a database that was written with pickled objects."""
    written = rocksdict.Rdict(str(tmp_path / "0"))
    written[b"key"] = Canary(canary)
    written.close()
    caches = partition_caches(tmp_path, 1 << 20)
    ((key, value),) = caches[0]._database.items()
    assert (type(key), type(value)) == (bytes, bytes)
    assert b"mkdir" in value, "the pickle, as it was written"
    with pytest.raises(msgspec.DecodeError):
        caches[0].get_many([key])
    with pytest.raises(msgspec.DecodeError):
        decode_value(payload)
    caches.keep_only(())


# --- skops ----------------------------------------------------------------------------------------------------------
def loaded(path):
    return load_model("sklearn", str(path), file_digest("sklearn", str(path)), {}, allowed=[str(path)])


def archive(path, arrays=None, schema=None, added=()):
    """A working skops file, with members replaced or added."""
    content = zipfile.ZipFile(io.BytesIO(skops.io.dumps(LogisticRegression().fit([[0.0], [1.0]], [0, 1]))))
    with zipfile.ZipFile(path, "w") as out:
        for name in content.namelist():
            given = arrays if name.endswith(".npy") else schema if name == "schema.json" else None
            out.writestr(name, content.read(name) if given is None else given)
        for name in added:
            out.writestr(name, b"evil")
    return path


def test_a_pickle_with_the_name_of_a_skops_file_is_not_loaded(payload, canary, tmp_path):
    (tmp_path / "model.skops").write_bytes(payload)
    with pytest.raises(ModelNotLoaded, match="cannot be loaded"):
        loaded(tmp_path / "model.skops")
    objects = io.BytesIO()
    np.save(objects, np.array([Canary(canary)], dtype=object), allow_pickle=True)
    for members in ({"arrays": payload}, {"arrays": objects.getvalue()}, {"schema": payload}):
        with pytest.raises(ModelNotLoaded, match="cannot be loaded"):
            loaded(archive(tmp_path / "model.skops", **members))


@pytest.mark.parametrize(
    ("module", "name", "loader", "content"),
    [
        ("posix", "mkdir", "FunctionNode", {}),
        ("os", "system", "FunctionNode", {}),
        ("subprocess", "Popen", "TypeNode", {}),
        ("builtins", "str", "JsonNode", '"x"'),
    ],
)
def test_a_skops_file_that_names_a_function_of_the_system_is_not_loaded(tmp_path, module, name, loader, content):
    node = {"__class__": name, "__module__": module, "__loader__": loader, "content": content, "is_json": True}
    schema = json.dumps({**node, "__id__": 1, "protocol": 2, "_skops_version": skops.__version__})
    with pytest.raises(ModelNotLoaded):
        loaded(archive(tmp_path / "model.skops", schema=schema.encode()))


def test_a_skops_file_with_names_that_lead_out_of_it_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    outside = [f"{'../' * levels}evil" for levels in range(4)] + [str(tmp_path / "evil"), "/evil"]
    before = set(tmp_path.rglob("*"))
    path = archive(folder / "model.skops", added=outside)
    assert loaded(path).predict_batch(np.array([[0.0], [1.0]])).tolist() == [0, 1]
    assert set(tmp_path.rglob("*")) - before == {path}
    assert not Path("/evil").exists()
