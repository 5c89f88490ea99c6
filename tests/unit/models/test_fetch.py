import hashlib
import subprocess
import sys
import threading
import tracemalloc

import fsspec
import pytest
from fsspec.implementations.http import HTTPFileSystem
from stub_server import PATH, Answer, StubServer, serving

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models import registry
from clipper_stream.models.fetch import fetched, read_remote
from clipper_stream.models.runtimes.model_files import FileRules

CONTENT = b"weights" * 400_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def kept_in(folder):
    return {path.name for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def memory(tmp_path):
    uri = f"memory://{tmp_path.name}/model"
    fsspec.filesystem("memory").pipe(uri, CONTENT)
    yield uri
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


@pytest.fixture
def server():
    """Has one file, and knows no ranges."""
    with serving(StubServer(metadata=Answer(CONTENT))) as running:
        yield running


def test_a_file_is_fetched_once_and_then_read_from_the_cache(tmp_path, memory):
    assert fetched(memory, DIGEST, tmp_path) == CONTENT
    fsspec.filesystem("memory").pipe(memory, b"")
    assert fetched(memory, DIGEST, tmp_path) == CONTENT
    assert kept_in(tmp_path) == {DIGEST}


def test_what_somebody_has_damaged_in_the_cache_is_fetched_again(tmp_path, memory):
    (tmp_path / DIGEST).write_bytes(CONTENT[:-1] + b"!")
    (tmp_path / f"{DIGEST}.part").write_bytes(b"of a process that was killed")
    assert fetched(memory, DIGEST, tmp_path) == CONTENT
    assert (tmp_path / DIGEST).read_bytes() == CONTENT
    assert kept_in(tmp_path) == {DIGEST}


def test_over_http_a_file_is_fetched_as_long_as_bytes_come_and_not_five_minutes(tmp_path, server):
    assert fetched(server.url, DIGEST, tmp_path) == CONTENT
    timeout = HTTPFileSystem.current().client_kwargs["timeout"]
    assert (timeout.total, timeout.sock_connect, timeout.sock_read) == (None, 60.0, 60.0)
    server.metadata = Answer(status=404)
    with pytest.raises(ModelNotLoaded, match="cannot be fetched"):
        fetched(server.url, "0" * 64, tmp_path)


@pytest.mark.parametrize("to", ["/elsewhere", "http://localhost:{port}/elsewhere", "file:///etc/passwd"])
def test_a_redirect_is_not_followed_and_says_where_to(tmp_path, server, to):
    to = to.format(port=server.port)
    server.metadata = Answer(b"", 302, {"location": to})
    with pytest.raises(ModelNotLoaded, match=f"{PATH}' redirects to '{to}', which is not followed"):
        fetched(server.url, DIGEST, tmp_path)
    assert {asked.path for asked in server.asked} == {PATH}
    assert kept_in(tmp_path) == set()


def test_what_is_not_compared_yet_takes_no_memory(tmp_path, memory):
    fsspec.filesystem("memory").pipe(memory, b"x" * (24 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ModelNotLoaded, match="expected sha256"):
            fetched(memory, DIGEST, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_hosts_that_start_at_once_fetch_a_file_once(tmp_path, server):
    program = "import sys; from pathlib import Path; from clipper_stream.models.fetch import fetched\n"
    program += "sys.stdin.read(); print(len(fetched(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))"
    command = [sys.executable, "-c", program, server.url, DIGEST, str(tmp_path)]
    hosts = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    threads = [threading.Thread(target=fetched, args=(server.url, DIGEST, tmp_path)) for _ in range(2)]
    for host, thread in zip(hosts, threads, strict=True):
        host.stdin.close()
        thread.start()
    for host, thread in zip(hosts, threads, strict=True):
        thread.join()
        with host.stdout:
            assert int(host.stdout.read()) == len(CONTENT)
        assert host.wait() == 0
    assert [asked.method for asked in server.asked].count("GET") == 1
    assert kept_in(tmp_path) == {DIGEST}


FOREIGN = """
ssh://host/etc/passwd sftp://host/a reference://a github://acme:models/a local:///etc/passwd simplecache::memory://a
memory://zip://a::file:///etc/passwd data://text/plain,abc ://a HTTP://host/a
"""
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}


@pytest.mark.parametrize(
    ("uri", "digest", "said"),
    [
        (None, "0" * 64, f"expected sha256 {'0' * 64}, found {DIGEST}"),
        *[(None, digest, "is no digest") for digest in ("", "a", "../" * 20 + "a" * 4, "A" * 64, "/etc/passwd")],
        *[(uri, DIGEST, "give the path of a file, or a URI with one of") for uri in FOREIGN.split()],
        *[(f"{scheme}://acme/a.onnx", DIGEST, f"[Ii]nstall {package}") for scheme, package in PACKAGES.items()],
        ("https://me:hunter2@example.org/a.onnx", DIGEST, "log in by the environment"),
    ],
)
def test_what_is_not_fetched_says_why_and_leaves_nothing(tmp_path, monkeypatch, memory, uri, digest, said):
    for package in PACKAGES.values():
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelNotLoaded, match=said) as refused:
        fetched(uri or memory, digest, tmp_path)
    assert "hunter2" not in str(refused.value)
    assert kept_in(tmp_path) == set()


def test_a_file_elsewhere_is_read_by_the_same_protocols_within_a_bound_and_kept_where_one_can_write(tmp_path, memory):
    for uri in FOREIGN.split():
        with pytest.raises(ModelNotLoaded, match="give the path of a file, or a URI with one of"):
            read_remote(uri)
    with pytest.raises(ModelNotLoaded, match="more than 1000 bytes"):
        fetched(memory, DIGEST, tmp_path, max_bytes=1000)
    assert kept_in(tmp_path) == set()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelNotLoaded, match=r"cache_dir = .*file"):
        fetched(memory, DIGEST, tmp_path / "file")


def test_a_runtime_takes_a_uri_but_no_digest_from_bytes_that_came_over_http(tmp_path, memory, server):
    rules = FileRules(cache_dir=str(tmp_path / "cache"))
    with pytest.raises(ModelNotLoaded, match="expected sha256"):
        registry.load_model("onnx", memory, "0" * 64, allowed=[memory], files=rules)
    with pytest.raises(ModelNotLoaded, match="only with a sha256"):
        registry.file_digest("onnx", server.url)
    assert server.asked == []
    (tmp_path / "a").write_bytes(CONTENT)
    assert registry.file_digest("onnx", memory) == registry.file_digest("onnx", f"file://{tmp_path}/a") == DIGEST


def test_the_cache_folder_is_the_users_own_by_default(tmp_path, monkeypatch, memory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert FileRules().fetched(memory, DIGEST) == CONTENT
    folder = tmp_path / "clipper-stream/models"
    assert kept_in(folder) == {DIGEST}
    assert folder.stat().st_mode & 0o077 == 0
