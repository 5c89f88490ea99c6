"""The runtime `python` takes functions, classes and instances, and says what to do when it cannot."""

import hashlib
import sys
from pathlib import Path

import pytest

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.registry import load_model
from clipper_stream.models.warm_up import warm_up

SOURCE = """
from dataclasses import dataclass

def double(rows): return [2 * row for row in rows]
def times(rows, *, factor): return [factor * row for row in rows]
def no_rows(): return []
async def later(rows): return rows

@dataclass
class Times:
    factor: int = 3
    def predict_batch(self, rows): return [self.factor * row for row in rows]

class Sklearnish:
    def predict(self, rows): return [-row for row in rows]

class Exits:
    def __init__(self): raise SystemExit(1)

class Plain: pass

class Warm:
    warm = False
    def predict_batch(self, rows): return [self.warm] * len(rows)
    def warm_up(self): self.warm = True

class Outer:
    instance = Times(7)

instance = Times(5)
number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = f"written_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("attribute", "parameters", "outputs"),
    [
        ("double", {}, [2, 4]),
        ("times", {"factor": 10}, [10, 20]),
        ("Times", {}, [3, 6]),
        ("Times", {"factor": 4}, [4, 8]),
        ("Sklearnish", {}, [-1, -2]),
        ("instance", {}, [5, 10]),
        ("Outer.instance", {}, [7, 14]),
    ],
)
def test_functions_classes_and_instances_are_models(module, attribute, parameters, outputs):
    model = load_model("python", f"{module}:{attribute}", parameters=parameters)
    assert model.predict_batch([1, 2]) == outputs


@pytest.mark.parametrize(
    ("attribute", "parameters", "words"),
    [
        ("missing", {}, "there is no missing; written_"),
        ("double", {"factor": 1}, "correct the manifest's parameters"),
        ("times", {}, "missing a required argument: 'factor'"),
        ("no_rows", {}, "too many positional arguments"),
        ("later", {}, "async function"),
        ("Times", {"colour": 1}, "unexpected keyword argument 'colour'"),
        ("Exits", {}, "SystemExit"),
        ("Plain", {}, "of kind Plain"),
        ("number", {}, "of kind int"),
        ("instance", {"factor": 1}, "takes no parameters"),
    ],
)
def test_what_is_no_model_is_refused_with_what_to_do(module, attribute, parameters, words):
    with pytest.raises(ModelNotLoaded, match=words):
        load_model("python", f"{module}:{attribute}", parameters=parameters)


@pytest.mark.parametrize("uri", ["", "module", "module:", ":x", "a b:c", "../x:y", "a.:b", "a:b c", "a:b:c"])
def test_a_uri_of_another_form_is_refused(uri):
    with pytest.raises(ModelNotLoaded, match=r"takes package.module:attribute"):
        load_model("python", uri)


@pytest.mark.parametrize("name", ["no_such_module_at_all", "no_such_package.module"])
def test_a_missing_module_is_explained(name):
    with pytest.raises(ModelNotLoaded, match="PYTHONPATH"):
        load_model("python", f"{name}:x")


@pytest.mark.parametrize("source", ["raise SystemExit(3)", "1 / 0", "import no_such_dependency", "def ("])
def test_a_module_that_fails_while_imported_is_explained(tmp_path, monkeypatch, source):
    name = f"broken_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelNotLoaded, match=f"importing {name} failed"):
        load_model("python", f"{name}:x")


def test_the_digest_of_the_modules_file_is_compared(module, tmp_path):
    digest = hashlib.sha256((tmp_path / f"{module}.py").read_bytes()).hexdigest()
    assert load_model("python", f"{module}:double", sha256=digest.upper())
    with pytest.raises(ModelNotLoaded, match="deploy it as another version"):
        load_model("python", f"{module}:double", sha256="0" * 64)


def test_nothing_of_a_module_with_another_digest_is_run(tmp_path, monkeypatch):
    trace = tmp_path / "trace"
    name = f"eager_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(f"open({str(trace)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelNotLoaded):
        load_model("python", f"{name}:x", sha256="0" * 64)
    assert not Path(trace).exists()


def test_a_module_without_a_file_has_no_digest():
    assert load_model("python", "builtins:sorted").predict_batch([2, 1]) == [1, 2]
    with pytest.raises(ModelNotLoaded):
        load_model("python", "builtins:sorted", sha256="0" * 64)


def test_a_models_own_warm_up_is_used(module):
    model = load_model("python", f"{module}:Warm")
    assert warm_up(model, None) is None
    assert model.predict_batch([0]) == [True]
