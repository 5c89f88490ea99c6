"""A model file from elsewhere is fetched once, and only what has the expected digest is kept."""

import hashlib
import os
import subprocess
import sys
import threading
import tracemalloc
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models import registry
from clipper_stream.models.allowlist import allows_file
from clipper_stream.models.fetch import _opened, fetched, read_remote
from clipper_stream.models.runtimes.model_files import FileRules

CONTENT = b"weights" * 400_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def kept_in(folder):
    return {path.name for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def memory(tmp_path):
    """A file in fsspec's memory; its URI."""
    uri = f"memory://{tmp_path.name}/model"
    fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/model", CONTENT)
    yield uri
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


@pytest.fixture
def server():
    """An HTTP server that knows no ranges; `asked` counts what is sent, and `gates` holds answers back."""

    class Handler(BaseHTTPRequestHandler):
        server: Any

        def do_HEAD(self):
            self.answer(b"")

        def do_GET(self):
            self.server.asked[self.path] += 1
            self.answer(CONTENT)

        def answer(self, body):
            to = self.server.redirects.get(self.path)
            self.send_response(302 if to else 200 if self.path.startswith("/models") else 404)
            if to:
                self.send_header("Location", to)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *said):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.asked, serving.redirects = Counter(), {}  # type: ignore[attr-defined]
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def test_a_file_is_fetched_once_and_then_read_from_the_cache(tmp_path, memory):
    assert fetched(memory, DIGEST, tmp_path) == CONTENT
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}/model")
    fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/other", b"")
    assert fetched(memory, DIGEST, tmp_path) == CONTENT
    assert kept_in(tmp_path) == {DIGEST}


def test_another_digest_is_an_error_that_says_both_and_leaves_nothing(tmp_path, memory):
    with pytest.raises(ModelNotLoaded, match=f"expected sha256 {'0' * 64}, found {DIGEST}"):
        fetched(memory, "0" * 64, tmp_path)
    assert kept_in(tmp_path) == set()


def test_a_file_that_grows_too_large_is_an_error_that_leaves_nothing(tmp_path, memory):
    with pytest.raises(ModelNotLoaded, match="more than 1000 bytes"):
        fetched(memory, DIGEST, tmp_path, max_bytes=1000)
    assert kept_in(tmp_path) == set()


def test_what_somebody_has_damaged_in_the_cache_is_fetched_again(tmp_path, memory):
    (tmp_path / DIGEST).write_bytes(CONTENT[:-1] + b"!")
    (tmp_path / f"{DIGEST}.part").write_bytes(b"of a process that was killed")
    assert fetched(memory, DIGEST, tmp_path) == CONTENT
    assert (tmp_path / DIGEST).read_bytes() == CONTENT
    assert kept_in(tmp_path) == {DIGEST}


def test_over_http_a_file_is_fetched_from_a_server_that_knows_no_ranges(tmp_path, server):
    uri = f"http://127.0.0.1:{server.server_port}/models/a.onnx"
    assert fetched(uri, DIGEST, tmp_path) == CONTENT
    with pytest.raises(ModelNotLoaded, match="cannot be fetched"):
        fetched(f"http://127.0.0.1:{server.server_port}/none", "0" * 64, tmp_path)


@pytest.mark.parametrize("to", ["/models/b.onnx", "http://localhost:{port}/models/b.onnx", "file:///etc/passwd"])
def test_a_redirect_is_not_followed_and_says_where_to(tmp_path, server, to):
    server.redirects["/models/a.onnx"] = to = to.format(port=server.server_port)
    with pytest.raises(
        ModelNotLoaded, match=f"/models/a.onnx' redirects to '{to}', which is not followed: give the URI"
    ):
        fetched(f"http://127.0.0.1:{server.server_port}/models/a.onnx", DIGEST, tmp_path)
    assert "/models/b.onnx" not in server.asked
    assert kept_in(tmp_path) == set()


def test_what_is_not_compared_yet_takes_no_memory(tmp_path, memory):
    large = b"x" * (64 << 20)
    fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/model", large)
    tracemalloc.start()
    try:
        with pytest.raises(ModelNotLoaded, match="expected sha256"):
            fetched(memory, DIGEST, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_download_over_http_lasts_as_long_as_bytes_come_and_not_five_minutes(server):
    with _opened(f"http://127.0.0.1:{server.server_port}/models/a.onnx") as file:
        timeout = file.fs.client_kwargs["timeout"]
    assert timeout.total is None
    assert timeout.sock_connect == timeout.sock_read == 60.0


def test_hosts_that_start_at_once_fetch_a_file_once(tmp_path, server):
    uri = f"http://127.0.0.1:{server.server_port}/models/a.onnx"
    program = "import sys; from pathlib import Path; from clipper_stream.models.fetch import fetched\n"
    program += "sys.stdin.read(); print(len(fetched(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))"
    command = [sys.executable, "-c", program, uri, DIGEST, str(tmp_path)]
    hosts = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    threads = [threading.Thread(target=fetched, args=(uri, DIGEST, tmp_path)) for _ in range(2)]
    for host in hosts:
        host.stdin.close()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for host in hosts:
        assert int(host.stdout.read()) == len(CONTENT)
        assert host.wait() == 0
        host.stdout.close()
    assert server.asked["/models/a.onnx"] == 1
    assert kept_in(tmp_path) == {DIGEST}


def test_a_digest_is_never_taken_from_bytes_that_came_over_http(server, memory):
    with pytest.raises(ModelNotLoaded, match="only with a sha256"):
        registry.file_digest("onnx", f"http://127.0.0.1:{server.server_port}/models/a.onnx")
    assert server.asked.total() == 0
    assert registry.file_digest("onnx", memory) == DIGEST


@pytest.mark.parametrize("uri", ["s3://acme/a.onnx", "gs://acme/a.onnx", "az://acme/a.onnx"])
def test_the_package_that_a_protocol_needs_is_named(tmp_path, uri, monkeypatch):
    needs = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}[uri[:2]]
    monkeypatch.setitem(sys.modules, needs, None)
    with pytest.raises(ModelNotLoaded, match=f"pip install {needs}"):
        fetched(uri, DIGEST, tmp_path)


@pytest.mark.parametrize(
    "uri",
    [
        "ssh://host/etc/passwd",
        "sftp://host/a",
        "reference://a",
        "github://acme:models/a",
        "local:///etc/passwd",
        "simplecache::memory://a",
        "memory://zip://a::file:///etc/passwd",
        "data://text/plain,abc",
        "://a",
        "HTTP://host/a",
    ],
)
def test_other_protocols_and_chains_of_them_are_refused(tmp_path, uri):
    for read in (lambda: fetched(uri, DIGEST, tmp_path / "cache"), lambda: read_remote(uri)):
        with pytest.raises(ModelNotLoaded, match="give the path of a file, or a URI with one of"):
            read()
    assert not (tmp_path / "cache").exists()


def test_a_password_in_a_uri_is_refused_and_not_repeated(tmp_path):
    with pytest.raises(ModelNotLoaded, match="log in by the environment") as refused:
        fetched("https://me:hunter2@example.org/a.onnx", DIGEST, tmp_path)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("sha256", ["", "a", "../" * 20 + "a" * 4, "A" * 64, "/etc/passwd"])
def test_a_digest_that_is_none_never_becomes_a_path(tmp_path, memory, sha256):
    with pytest.raises(ModelNotLoaded, match="is no digest"):
        fetched(memory, sha256, tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path, memory):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelNotLoaded, match=r"cache_dir = .*file"):
        fetched(memory, DIGEST, tmp_path / "file")


def test_every_runtime_of_files_takes_a_uri(tmp_path, memory):
    rules = FileRules(unpickle=True, cache_dir=str(tmp_path / "cache"))
    for name, runtime in registry.RUNTIMES.items():
        if runtime.NEEDS_DIGEST:
            with pytest.raises(ModelNotLoaded, match="expected sha256"):
                registry.load_model(name, memory, "0" * 64, allowed=[memory], files=rules)
            with pytest.raises(ModelNotLoaded, match="outside of what this process may load"):
                registry.load_model(name, memory, DIGEST, allowed=[str(tmp_path)], files=rules)


def test_a_file_uri_is_the_path_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(CONTENT)
    assert registry.file_digest("onnx", f"file://{tmp_path}/a") == DIGEST
    assert allows_file([str(tmp_path)], f"file://{tmp_path}/a")
    assert allows_file([f"file://{tmp_path}"], f"{tmp_path}/a")
    assert not allows_file([str(tmp_path)], f"file://{tmp_path}/../a")


@pytest.mark.parametrize(
    ("entry", "uri", "allowed"),
    [
        ("s3://acme/models", "s3://acme/models/a.onnx", True),
        ("s3://acme/models/", "s3://acme/models/2/a.onnx", True),
        ("s3://acme", "s3://acme/models/a.onnx", True),
        ("https://host/m/a?version=2", "https://host/m/a?version=2", True),
        ("s3://acme/models", "s3://acme/models-of-others/a.onnx", False),
        ("s3://acme/models", "s3://acme2/models/a.onnx", False),
        ("s3://acme/models", "gs://acme/models/a.onnx", False),
        ("https://host/models", "http://host/models/a", False),
        ("https://host/models", "https://host:8443/models/a", False),
        ("https://host/models", "https://host@evil/models/a", False),
        ("https://host/models", "https://host/models/../a", False),
        ("https://host/models", "https://host/models/%2e%2e/a", False),
        ("https://host/models", "https://host/models/%252e%252e/a", False),
        ("https://host/models", "https://host/models/..\\a", False),
        ("https://host/models", "https://host/models/a?file=../../b", False),
        ("https://host/models", "https://[host/models/a", False),
        ("/models", "s3://models/a", False),
        ("acme.models", "s3://acme.models/a", False),
        ("s3://acme/models", "s3:/acme/models/a", False),
    ],
)
def test_a_uri_is_allowed_by_an_entry_above_it(entry, uri, allowed):
    assert allows_file([entry], uri) is allowed


def test_the_cache_folder_is_the_users_own_by_default(tmp_path, monkeypatch, memory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert FileRules().fetched(memory, DIGEST) == CONTENT
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "clipper-stream/models"
    assert kept_in(folder) == {DIGEST}
    assert folder.stat().st_mode & 0o077 == 0
