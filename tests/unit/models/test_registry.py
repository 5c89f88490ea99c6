"""A model is loaded by runtime, within what the process allows."""

import hashlib

import pytest
from builders.host import FunctionOfRow

from clipper_stream.errors import ModelNotLoaded, UnknownName
from clipper_stream.models.registry import RUNTIMES, load_model
from clipper_stream.models.runtimes.model_files import FileRules

SUM = "clipper_agents.examples.models:sum_of_row"


def test_an_unknown_runtime_is_answered_with_those_that_exist():
    with pytest.raises(UnknownName, match=f"'pickle': use one of {', '.join(sorted(RUNTIMES))}"):
        load_model("pickle", "x")


@pytest.mark.parametrize("prefix", ["clipper_agents", "clipper_agents.examples", "clipper_agents.examples.models"])
def test_a_module_inside_an_allowed_package_is_loaded(prefix):
    assert load_model("python", SUM, allowed=["other", prefix])


@pytest.mark.parametrize("prefixes", [[], ["os"], ["clipper_agents.example"], ["clipper_agents.examples.models.sum"]])
def test_a_module_outside_is_refused(prefixes):
    with pytest.raises(ModelNotLoaded, match="outside of what this process may load"):
        load_model("python", SUM, allowed=prefixes)


def test_a_file_that_leaves_its_directory_is_refused(tmp_path):
    inside, outside = tmp_path / "models", tmp_path / "secret.skops"
    inside.mkdir()
    outside.write_bytes(b"")
    (inside / "link.skops").symlink_to(outside)
    for uri in (inside / ".." / "secret.skops", inside / "link.skops", outside):
        with pytest.raises(ModelNotLoaded, match="outside of what this process may load"):
            load_model("sklearn", str(uri), allowed=[str(inside)])


def test_an_unpickling_runtime_is_used_only_where_the_operator_permits_it():
    class Unpickling:
        NEEDS_DIGEST = True
        UNPICKLES = True
        loaded = 0

        def check_allowed(self, uri, parameters, allowed):
            pass

        def read(self, uri):
            return b""

        def load(self, uri, content, parameters, allowed):
            self.loaded += 1
            return FunctionOfRow(lambda row: row)

    runtime = Unpickling()
    for parameters in ({}, {"unpickle": True}):
        with pytest.raises(ModelNotLoaded, match="unpickle = true"):
            load_model("joblib", "a", hashlib.sha256(b"").hexdigest(), parameters, runtimes={"joblib": runtime})
    assert runtime.loaded == 0
    rules = FileRules(unpickle=True)
    assert load_model("joblib", "a", hashlib.sha256(b"").hexdigest(), files=rules, runtimes={"joblib": runtime})


def test_a_runtime_can_be_added():
    class Constant:
        NEEDS_DIGEST = False
        UNPICKLES = False

        def check_allowed(self, uri, parameters, allowed):
            raise AssertionError("all is allowed")

        def read(self, uri):
            return uri.encode()

        def load(self, uri, content, parameters, allowed):
            return FunctionOfRow(lambda row: (content, parameters))

    model = load_model("constant", "uri", None, {"a": 1}, runtimes={"constant": Constant()})
    assert model.predict_batch([0]) == [(b"uri", {"a": 1})]
