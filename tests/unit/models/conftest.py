"""Fixtures of the models' tests."""

import hashlib
import importlib
import sys
import uuid

import pytest

from clipper_stream.models.registry import load_model
from clipper_stream.models.runtimes.model_files import FileRules


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a package that can be imported, and modules in it by their names; gives the package's name."""
    monkeypatch.syspath_prepend(tmp_path)
    packages = set()

    def write(source="", **modules):
        package = f"written_{uuid.uuid4().hex}"
        packages.add(package)
        (tmp_path / package).mkdir()
        for name, text in {"__init__": source, **modules}.items():
            (tmp_path / package / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return package

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


@pytest.fixture
def loaded(tmp_path):
    def load(runtime, content, parameters=None, *, unpickle=False, **how):
        (tmp_path / "model").write_bytes(content)
        digest, files = hashlib.sha256(content).hexdigest(), FileRules(unpickle=unpickle)
        return load_model(runtime, str(tmp_path / "model"), digest, parameters, files=files, **how)

    return load
