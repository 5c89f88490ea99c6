import hashlib

import pytest

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.registry import load_model
from clipper_stream.models.runner import warm_up

SOURCE = """
import builtins
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
class Raises:
    def __init__(self, error): raise getattr(builtins, error)(3)
class Plain: pass
class Warm:
    warm = False
    def predict_batch(self, rows): return [self.warm] * len(rows)
    def warm_up(self): self.warm = True
class Outer: instance = Times(7)
instance = Times(5)
number = 3
"""
ENDS = ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "BaseException"]


@pytest.fixture
def models(module):
    return module(SOURCE)


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
def test_functions_classes_and_instances_are_models(models, attribute, parameters, outputs):
    assert load_model("python", f"{models}:{attribute}", parameters=parameters).predict_batch([1, 2]) == outputs


@pytest.mark.parametrize(
    ("attribute", "parameters", "words"),
    [
        ("missing", {}, "there is no missing in written_"),
        ("double", {"factor": 1}, "correct the manifest's parameters"),
        ("times", {}, "missing a required argument: 'factor'"),
        ("no_rows", {}, "too many positional arguments"),
        ("later", {}, "async function"),
        ("Times", {"colour": 1}, "unexpected keyword argument 'colour'"),
        *[("Raises", {"error": error}, f"failed with {error}: 3") for error in ENDS],
        ("Plain", {}, "of kind Plain"),
        ("number", {}, "of kind int"),
        ("instance", {"factor": 1}, "takes no parameters"),
    ],
)
def test_what_is_no_model_is_refused_with_what_to_do(models, attribute, parameters, words):
    with pytest.raises(ModelNotLoaded, match=words):
        load_model("python", f"{models}:{attribute}", parameters=parameters)


@pytest.mark.parametrize("uri", ["", "module", "module:", ":x", "a b:c", "../x:y", "a.:b", "a:b c", "a:b:c"])
def test_a_uri_of_another_form_is_refused(uri):
    with pytest.raises(ModelNotLoaded, match=r"takes package.module:attribute"):
        load_model("python", uri)


@pytest.mark.parametrize(
    "source", [*(f"raise {error}(3)" for error in ENDS), "1 / 0", "import no_such_module", "def ("]
)
def test_a_module_that_is_missing_or_fails_while_imported_is_explained(module, source):
    own = "PYTHONPATH" if "import " in source else "correct the module"
    for name, advice in ((module(source), own), ("no_such_module", "PYTHONPATH"), ("no_package.module", "PYTHONPATH")):
        with pytest.raises(ModelNotLoaded, match=f"importing {name} failed .*{advice}"):
            load_model("python", f"{name}:x")


def test_the_digest_of_the_modules_file_is_compared_before_anything_of_it_is_run(module, tmp_path):
    trace = tmp_path / "trace"
    source = f"open({str(trace)!r}, 'w')\ndef same(rows): return rows"
    uri, digest = f"{module(source)}:same", hashlib.sha256(source.encode()).hexdigest()
    with pytest.raises(ModelNotLoaded, match="deploy it as another version"):
        load_model("python", uri, sha256="0" * 64)
    assert not trace.exists()
    assert load_model("python", uri, sha256=digest.upper())
    assert trace.exists()


def test_a_module_without_a_file_has_no_digest():
    assert load_model("python", "builtins:sorted").predict_batch([2, 1]) == [1, 2]
    with pytest.raises(ModelNotLoaded):
        load_model("python", "builtins:sorted", sha256="0" * 64)


def test_a_models_own_warm_up_is_used(models):
    model = load_model("python", f"{models}:Warm")
    assert warm_up(model, None) is None
    assert model.predict_batch([0]) == [True]
