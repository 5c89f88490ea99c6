import sys
from pathlib import Path

import pytest

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.allowlist import allows_file, allows_module, allows_url
from clipper_stream.models.registry import load_model

SOURCE = """
import functools, operator, os, subprocess
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
class Command(File): pass
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
DEFINED = "double cached Times Times.made instance instance.predict_batch Nested.Inner tripled"
IMPORTED = """
os subprocess os.system subprocess.run os.path.exists system there File File.unlink Popen run partial functools.partial
Times.helper Times.helper.system Times.shell Times.popen shell nested_shell cached_shell getter environ environ.clear
Command.unlink Command.write_bytes instance.helper.system instance_with_module.os.system instance.lazy double.fget
tripled.func.missing Times.mro cached.cache_clear
"""
PRIVATE = """
_hidden __builtins__ __loader__.load_module double.__globals__ double.__globals__.get double.__class__ Times.__init__
Times.__init__.__globals__ Times.__subclasses__ Times.__base__ instance.__class__.__base__.__subclasses__
instance.__reduce__ __spec__.loader double.__code__
"""
OUTSIDE = """
os:system subprocess:run builtins:eval builtins:exec importlib:import_module pickle:loads sys:exit runpy:run_path
webbrowser:open antigravity:x clipper_agents.supervisor.process:ChildProcess.start
"""
HTTP = r"""
http://host/m/a https://host:8443/m/a https://host@evil/m/a https://host/m/../a https://host/m/%2e%2e/a
https://host/m/%252e%252e/a https://host/m/..\a https://host/m/a?file=../../b https://[host/m/a
"""


@pytest.fixture
def package(module, tmp_path):
    return module(models=SOURCE, other=f"open({str(tmp_path / 'imported')!r}, 'w')\ndef f(rows): return rows")


@pytest.mark.parametrize("attribute", DEFINED.split())
def test_what_an_allowed_module_defines_is_a_model(package, attribute):
    assert load_model("python", f"{package}.models:{attribute}", allowed=[f"{package}.models:"])


@pytest.mark.parametrize("attribute", IMPORTED.split())
def test_what_an_allowed_module_has_imported_is_none(package, attribute):
    with pytest.raises(ModelNotLoaded):
        load_model("python", f"{package}.models:{attribute}", allowed=[f"{package}.models"])


@pytest.mark.parametrize("attribute", PRIVATE.split())
def test_a_private_name_is_none_before_anything_is_imported(package, attribute):
    with pytest.raises(ModelNotLoaded, match="is a private name"):
        load_model("python", f"{package}.models:{attribute}", allowed=[f"{package}.models"])
    assert f"{package}.models" not in sys.modules


@pytest.mark.parametrize("uri", OUTSIDE.split())
def test_a_module_that_is_not_allowed_is_not_imported(package, uri):
    before = set(sys.modules)
    with pytest.raises(ModelNotLoaded, match="outside of what this process may load"):
        load_model("python", uri, parameters={"shell": True, "args": "true"}, allowed=[f"{package}.models"])
    assert set(sys.modules) == before


def test_an_exact_module_does_not_allow_the_package_around_it_nor_what_is_below_it(package, tmp_path):
    exact = f"{package}.models"
    for allowed in (f"{package}:", f"{exact}:", exact, package[:-1], f"{package}.oth"):
        with pytest.raises(ModelNotLoaded, match="outside"):
            load_model("python", f"{package}.other:f", allowed=[allowed])
    assert not (tmp_path / "imported").exists()
    assert load_model("python", f"{package}.other:f", allowed=[package])
    assert (tmp_path / "imported").exists()


def test_an_allowed_package_does_not_offer_its_submodules_as_attributes(package):
    assert load_model("python", f"{package}.models:double", allowed=[package])
    with pytest.raises(ModelNotLoaded, match="models is a module, name it before the colon"):
        load_model("python", f"{package}:models.os.system", allowed=[package])


@pytest.mark.parametrize("path", ["\0", "/models/\0", "/" + "x" * 5000, "/proc/self/root/etc/passwd", "/dev/zero", ""])
def test_a_name_that_no_file_system_takes_is_outside(path):
    assert not allows_file(["/models"], path)


def test_a_file_that_leaves_its_directory_or_a_circle_of_links_is_refused(tmp_path):
    inside, outside = tmp_path / "models", tmp_path / "secret.skops"
    inside.mkdir()
    outside.write_bytes(b"")
    for link, target in (("link", outside), ("a", inside / "b"), ("b", inside / "a")):
        (inside / link).symlink_to(target)
    for uri in (inside / ".." / "secret.skops", inside / "link", inside / "a", outside):
        with pytest.raises(ModelNotLoaded, match="outside of what this process may load"):
            load_model("sklearn", str(uri), allowed=[str(inside)])


@pytest.mark.parametrize(
    ("entry", "allowed", "others"),
    [
        (
            "s3://acme/models",
            "s3://acme/models/a s3://acme/models/2/a",
            "s3://acme/models-of-others/a s3://acme2/models/a gs://acme/models/a s3:/acme/models/a",
        ),
        ("s3://acme/models/", "s3://acme/models/2/a", "s3://acme/models2"),
        ("s3://acme", "s3://acme/models/a", "s3://acme2/a"),
        ("https://host/m/a?version=2", "https://host/m/a?version=2", "https://host/m/a?version=3"),
        ("https://host/m", "https://host/m/a", HTTP),
        ("http://models:8080", "http://models:8080/a", "http:/models:8080/a"),
        ("/models", "/models/a file:///models/a", "s3://models/a file:///models/../a http:/models/a"),
        ("file:///models", "/models/a", "/models2/a"),
        ("acme.models", "", f"s3://acme.models/a {Path('acme.models').resolve()}"),
    ],
)
def test_a_file_is_allowed_by_an_entry_above_it(entry, allowed, others):
    assert [uri for uri in f"{allowed} {others}".split() if allows_file([entry], uri)] == allowed.split()


def test_a_directory_or_a_url_allows_no_module():
    assert not allows_module(["/acme", "acme/", ""], "acme.models")
    assert not allows_module(["/acme"], "acme")
    assert not allows_module(["http://models:8080"], "http")


MODEL = "http://models:8080/v2/models/digits"
ABOVE = f"""
{MODEL} http://models:8080 http://models:8080/ http://models:8080/v2/models http://models:8080/v2/models/
HTTP://Models:8080/v2
"""
ELSEWHERE = f"""
https://models:8080 http://models:8081 http://models http://model:8080 http://models.evil:8080 http://user@models:8080
http://models:8080/v2/models/digit {MODEL}2 {MODEL}/versions models:8080 /models:8080 http:// :// http://[::1
"""
AMBIGUOUS = """
http://models:8080@evil/v2/models/a http://models:8080/v2/models/../../admin http://models:8080/v2/models/./a
http://models:8080/v2/models/%2e%2e/admin http://models:8080//evil/v2/models/a http://models:8080/v2/models/a?x=1
http://models:8080/v2/models/a#b http://models:8080\\@evil/v2/models/a http://models:8080/v2/models/\u0430
http://models:port/v2/models/a http://models:0/v2/models/a file:///etc/passwd ftp://models:8080/v2/models/a
"""


def test_a_server_is_asked_when_an_entry_has_its_scheme_host_and_port_and_begins_its_path():
    for url in (MODEL, f"{MODEL}/versions/2"):
        assert [entry for entry in ABOVE.split() if not allows_url(["acme.models", "/srv/models", entry], url)] == []
    assert [entry for entry in ELSEWHERE.split() if allows_url([entry], MODEL)] == []
    ports = {"https://models:443": "https://models/v2", "http://models": "http://models:80/v2"}
    assert all(allows_url([entry], url) for entry, url in ports.items()), "that are not written"
    assert not allows_url(["http://models"], "http://models:443/v2")


def test_what_two_programs_read_differently_is_below_nothing():
    urls = [*AMBIGUOUS.split(), f"{MODEL} b", f"{MODEL}\r\nHost: evil", f"\t{MODEL}"]
    assert [url for url in urls if allows_url(["http://models:8080", "http://models", url], url)] == []
