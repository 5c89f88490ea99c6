"""What a manifest from the control topic can name reaches nothing but what the allowed modules themselves define."""

import sys
from pathlib import Path

import pytest

from clipper_stream.errors import ModelNotLoaded, UnknownName
from clipper_stream.models.allowlist import allows_file, allows_module
from clipper_stream.models.registry import RUNTIMES, load_model

SOURCE = """
import os
import subprocess
import functools
import operator
from functools import lru_cache, partial
from os import system
from os.path import exists as there
from pathlib import Path as File
from subprocess import Popen, run

def double(rows): return [2 * row for row in rows]
def _hidden(rows): return rows

@lru_cache
def cached(rows): return rows

class Times:
    helper = os
    shell = staticmethod(run)
    popen = Popen
    def __init__(self, factor=3): self.factor = factor
    def predict_batch(self, rows): return [self.factor * row for row in rows]
    @classmethod
    def made(cls, rows): return rows
    @property
    def lazy(self): raise SystemExit(3)

class Command(File):
    pass

class Nested:
    class Inner:
        def predict(self, rows): return [0 for _ in rows]
        def __init__(self): self.os = os

instance = Times(5)
instance_with_module = Nested.Inner()
tripled = partial(double)
shell = partial(run, shell=True)
nested_shell = partial(partial(run), shell=True)
cached_shell = lru_cache(system)
getter = operator.methodcaller("system")
environ = os.environ
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    package = f"acme_{tmp_path.name}".replace("-", "_")
    folder = tmp_path / package
    (folder / "other").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "models.py").write_text(SOURCE)
    (folder / "other" / "__init__.py").write_text(
        f"open({str(tmp_path / 'imported')!r}, 'w')\ndef f(rows): return rows"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield f"{package}.models"
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "attribute",
    ["double", "cached", "Times", "Times.made", "instance", "instance.predict_batch", "Nested.Inner", "tripled"],
)
def test_what_an_allowed_module_defines_is_a_model(module, attribute):
    assert load_model("python", f"{module}:{attribute}", allowed=[f"{module}:"])


@pytest.mark.parametrize(
    "attribute",
    [
        "os",
        "subprocess",
        "os.system",
        "subprocess.run",
        "os.path.exists",
        "system",
        "there",
        "File",
        "File.unlink",
        "Popen",
        "run",
        "partial",
        "functools.partial",
        "Times.helper",
        "Times.helper.system",
        "Times.shell",
        "Times.popen",
        "shell",
        "nested_shell",
        "cached_shell",
        "getter",
        "environ",
        "environ.clear",
        "Command.unlink",
        "Command.write_bytes",
        "instance.helper.system",
        "instance_with_module.os.system",
        "instance.lazy",
        "double.fget",
        "tripled.func.missing",
        "Times.mro",
        "cached.cache_clear",
    ],
)
def test_what_an_allowed_module_has_imported_is_none(module, attribute):
    with pytest.raises(ModelNotLoaded):
        load_model("python", f"{module}:{attribute}", allowed=[module])


@pytest.mark.parametrize(
    "attribute",
    [
        "_hidden",
        "__builtins__",
        "__loader__.load_module",
        "double.__globals__",
        "double.__globals__.get",
        "double.__class__",
        "Times.__init__",
        "Times.__init__.__globals__",
        "Times.__subclasses__",
        "Times.__base__",
        "instance.__class__.__base__.__subclasses__",
        "instance.__reduce__",
        "__spec__.loader",
        "double.__code__",
    ],
)
def test_a_private_name_is_none_before_anything_is_imported(module, attribute):
    with pytest.raises(ModelNotLoaded, match="is a private name"):
        load_model("python", f"{module}:{attribute}", allowed=[module])
    assert module not in sys.modules


@pytest.mark.parametrize(
    "uri",
    [
        "os:system",
        "subprocess:run",
        "builtins:eval",
        "builtins:exec",
        "importlib:import_module",
        "pickle:loads",
        "sys:exit",
        "runpy:run_path",
        "webbrowser:open",
        "clipper_agents.supervisor.process:ChildProcess.start",
        "antigravity:x",
    ],
)
def test_a_module_that_is_not_allowed_is_not_imported(module, uri):
    before = set(sys.modules)
    with pytest.raises(ModelNotLoaded, match="outside of what this process may load"):
        load_model("python", uri, parameters={"shell": True, "args": "true"}, allowed=[module])
    assert set(sys.modules) == before


def test_an_exact_module_does_not_allow_the_package_around_it_nor_what_is_below_it(module, tmp_path):
    package = module.partition(".")[0]
    for allowed in ([f"{package}:"], [f"{module}:"], [module], [package[:-1]], [f"{package}.oth"]):
        with pytest.raises(ModelNotLoaded, match="outside"):
            load_model("python", f"{package}.other:f", allowed=allowed)
    assert not (tmp_path / "imported").exists()
    assert load_model("python", f"{package}.other:f", allowed=[package])
    assert (tmp_path / "imported").exists()


def test_an_allowed_package_does_not_offer_its_submodules_as_attributes(module):
    package = module.partition(".")[0]
    assert load_model("python", f"{module}:double", allowed=[package])
    with pytest.raises(ModelNotLoaded, match="models is a module, name it before the colon"):
        load_model("python", f"{package}:models.os.system", allowed=[package])


def test_a_model_that_raises_anything_while_it_is_loaded_does_not_end_the_process(tmp_path, monkeypatch):
    name = f"ends_{tmp_path.name}".replace("-", "_")
    monkeypatch.syspath_prepend(tmp_path)
    for error in ("KeyboardInterrupt", "SystemExit", "GeneratorExit", "BaseException"):
        (tmp_path / f"{name}.py").write_text(f"class Ends:\n    def __init__(self): raise {error}(3)\n")
        with pytest.raises(ModelNotLoaded):
            load_model("python", f"{name}:Ends", allowed=[name])
        (tmp_path / f"{name}_{error.lower()}.py").write_text(f"raise {error}(3)\n")
        with pytest.raises(ModelNotLoaded):
            load_model("python", f"{name}_{error.lower()}:Ends", allowed=[f"{name}_{error.lower()}"])
        sys.modules.pop(name, None)


@pytest.mark.parametrize("path", ["\0", "/models/\0", "/" + "x" * 5000, "/proc/self/root/etc/passwd", "/dev/zero", ""])
def test_a_name_that_no_file_system_takes_is_outside(path):
    assert not allows_file(["/models"], path)


def test_links_that_go_round_in_a_circle_are_outside(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ModelNotLoaded):
        load_model("sklearn", str(tmp_path / "a"), allowed=[str(tmp_path)])


def test_a_module_entry_allows_no_file_and_a_directory_no_module():
    assert not allows_file(["acme"], str(Path("acme").resolve()))
    assert not allows_module(["/acme"], "acme")
    assert not allows_module(["/acme", "acme/", ""], "acme.models")


def test_an_unknown_runtime_is_answered_with_those_that_exist():
    with pytest.raises(UnknownName, match=f"'pickle': use one of {', '.join(sorted(RUNTIMES))}"):
        load_model("pickle", "x")


def test_a_file_that_leaves_its_directory_is_refused(tmp_path):
    inside, outside = tmp_path / "models", tmp_path / "secret.skops"
    inside.mkdir()
    outside.write_bytes(b"")
    (inside / "link.skops").symlink_to(outside)
    for uri in (inside / ".." / "secret.skops", inside / "link.skops", outside):
        with pytest.raises(ModelNotLoaded, match="outside of what this process may load"):
            load_model("sklearn", str(uri), allowed=[str(inside)])
