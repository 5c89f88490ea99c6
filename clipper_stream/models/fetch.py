"""Model files that are elsewhere: fetched once, checked, and kept under the digest that they must have.

Rules of this file:
- Nothing is fetched without a digest, and nothing is in the cache under a digest that it does not have: a file gets its
  name when it is whole and was compared, by a rename. What is read from the cache is compared once more.
- A download goes to the disk piece by piece: bytes that may be wrong take no memory.
- Over HTTP nothing is fetched but from the URI: it is what an operator has allowed, so a redirect is refused.
- Processes that need the same file at the same time wait for the one that fetches it.
- A URI comes from a manifest: it names one of these protocols, no chain of them, no user and no password. How to log in
  is the operator's, in the configuration of fsspec or of the cloud's own tools.
- No file is larger than 16 GiB. The cache is not bounded and forgets nothing; any file in it may be deleted any time.

Source: fsspec documentation, "Built-in filesystem implementations".
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clipper_stream.errors import ModelNotLoaded, shown

PROTOCOLS = ("memory", "http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss")
"""What may stand before `://`. Others, `ssh` and `reference` among them, do more than to read one file."""
MAX_FILE_BYTES = 16 << 30
_CHUNK_BYTES = 1 << 20
_BLOCK_BYTES = 8 << 20
_SILENCE_S = 60.0
"""A server that says nothing for so long is given up."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/clipper-stream/models`, else `~/.cache/clipper-stream/models`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clipper-stream" / "models"


def fetched(uri: str, sha256: str, cache_dir: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a file elsewhere, from the cache if they are there.

    Raises:
        ModelNotLoaded: no such protocol or file, too large, or another digest; then nothing of it is in the cache.

    >>> import fsspec, tempfile
    >>> fsspec.filesystem("memory").pipe("/models/a", b"abc")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fetched("memory://models/a", hashlib.sha256(b"abc").hexdigest(), Path(folder))
    b'abc'
    """
    if not _SHA256.fullmatch(sha256):
        raise ModelNotLoaded(f"model file {uri!r}: sha256 {sha256!r} is no digest: give 64 hexadecimal digits")
    _check_protocol(uri)
    try:
        cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(cache_dir, sha256):
            while (kept := _kept(cache_dir / sha256, sha256)) is None:
                _fetch(uri, sha256, cache_dir / sha256, max_bytes)
            return kept
    except OSError as error:
        what = f"model file {uri!r}: {error}"
        raise ModelNotLoaded(f"{what}; see that [models] cache_dir = {str(cache_dir)!r} can be written") from error


def read_remote(uri: str, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a file elsewhere as they are now, kept nowhere: for who publishes its digest.

    Of a file over HTTP nobody says whose bytes they are: that is refused.
    """
    _check_protocol(uri)
    if _is_http(uri):
        raise ModelNotLoaded(
            f"model file {uri!r} is fetched over HTTP only with a sha256: state the one that you expect"
        )
    return b"".join(_chunks(uri, max_bytes))


def _check_protocol(uri: str) -> None:
    """Raise `ModelNotLoaded` unless a URI names one file by a known protocol, and no secret."""
    scheme, _, rest = uri.partition("://")
    if scheme not in PROTOCOLS or "::" in uri:
        known = ", ".join(f"{each}://" for each in PROTOCOLS)
        raise ModelNotLoaded(f"model file {uri!r}: give the path of a file, or a URI with one of {known}")
    authority = rest.partition("/")[0]
    if "@" in authority and not scheme.startswith("abfs"):
        raise ModelNotLoaded(
            f"model file {scheme}://...@{authority.rpartition('@')[2]}: a manifest is public, leave the user and the "
            "password out, and log in by the environment of the process"
        )


def _fetch(uri: str, sha256: str, path: Path, max_bytes: int) -> None:
    """Fetch into a file beside the final one, which nobody else writes while the lock is held."""
    partial = path.with_suffix(".part")
    hashed = hashlib.sha256()
    try:
        with partial.open("wb") as file:
            for chunk in _chunks(uri, max_bytes):
                file.write(chunk)
                hashed.update(chunk)
            file.flush()
            os.fsync(file.fileno())
        if hashed.hexdigest() != sha256:
            what = f"model file {uri!r}: expected sha256 {sha256}, found {hashed.hexdigest()}"
            raise ModelNotLoaded(f"{what}: deploy other bytes as another version, with their digest")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _chunks(uri: str, max_bytes: int) -> Iterator[bytes]:
    size = 0
    try:
        with _opened(uri) as file:
            while chunk := file.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > max_bytes:
                    raise ModelNotLoaded(f"model file {uri!r} has more than {max_bytes} bytes: give a smaller model")  # noqa: TRY301 - told as it is
                yield chunk
    except ModelNotLoaded:
        raise
    except Exception as error:
        if isinstance(error.__cause__, ModelNotLoaded):  # a redirect, as fsspec tells it
            raise error.__cause__ from None
        what = f"model file {uri!r} cannot be fetched, {type(error).__name__}: {error}"
        raise ModelNotLoaded(f"{what}; see that it is there and that this process may read it") from error


def _opened(uri: str) -> Any:
    import fsspec  # noqa: PLC0415 - only who fetches needs it, and it takes a while to import

    over_http = _is_http(uri)
    filesystem, path = fsspec.core.url_to_fs(uri, **(_http_options() if over_http else {}))
    # over HTTP, 0 stands for one stream: a server need not know ranges
    return filesystem.open(path, "rb", block_size=0 if over_http else _BLOCK_BYTES)


def _is_http(uri: str) -> bool:
    return urlsplit(uri).scheme in {"http", "https"}


def _http_options() -> dict[str, Any]:
    """A file may take as long as its bytes keep coming; aiohttp would end it after five minutes."""
    import aiohttp  # noqa: PLC0415 - only who fetches over HTTP needs it

    async def refuse(_session: Any, _context: Any, asked: aiohttp.TraceRequestRedirectParams) -> None:
        to = asked.response.headers.get("Location", "")
        raise ModelNotLoaded(
            f"model file {str(asked.url)!r} redirects to {shown(to)}, which is not followed: give the URI of the file"
        )

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_SILENCE_S, sock_read=_SILENCE_S)
    return {"client_kwargs": {"timeout": timeout, "trace_configs": [trace]}}


def _kept(path: Path, sha256: str) -> bytes | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(content).hexdigest() == sha256:
        return content
    path.unlink(missing_ok=True)
    return None


@contextmanager
def _locked(cache_dir: Path, sha256: str) -> Iterator[None]:
    """Alone among the processes of this machine, and its threads, that want this file."""
    folder = cache_dir / "locks"
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder / sha256, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
