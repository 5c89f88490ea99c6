"""What a process may load: packages, modules, directories and URLs, and how a name is held against them.

Rules of this file:
- A manifest may come from anybody who can write to the control topic. What it names is data until it was found here.
- An entry is one of four: `acme.models` is a package or module and all inside it, `acme.models:` is exactly this
  module, what has `://` is a place elsewhere and all below it, or one file or server there, and what
  has a slash is a directory and all inside it, or one file. A configuration has modules under one key and places, made
  absolute, under another.
- The list says who is trusted, not what is harmless: a public function of an allowed module can be asked for with any
  parameters, and a class of it made with any.
- A URL is asked when an entry has the same scheme, host and port, and a path that the URL's begins with, by segments:
  whoever can write to the control topic must not have this process send requests into its network. What two programs
  may read differently is below nothing: users, escapes, `..`, an empty segment, a query, a backslash.

Source: RFC 3986, sections 3 and 6.2.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from clipper_stream.errors import ModelNotLoaded, shown

_PORTS = {"http": 80, "https": 443}
_AMBIGUOUS = "@%\\?#"
"""Users and passwords, escapes, what some take for a slash, and what ends a path."""
_SHOWN = 300
AllowKey = Literal["allowed_modules", "allowed_locations"]
"""The keys of `[models]` that hold entries: modules and types, or directories, files and URIs."""


def allows_module(entries: Iterable[str], module: str) -> bool:
    """Whether a module, or a type by its full name, is one of the entries or inside one.

    >>> allows_module(["acme.models"], "acme.models.svm"), allows_module(["acme.models:"], "acme.models.svm")
    (True, False)
    >>> allows_module(["acme.models"], "acme.models2"), allows_module(["acme.models:"], "acme.models")
    (False, True)
    """
    return any(module == entry.removesuffix(":") or module.startswith(f"{entry}.") for entry in entries)


def allows_file(entries: Iterable[str], uri: str) -> bool:
    """Whether a file, or what a URI names, is one of the entries or inside one, symbolic links and `..` followed.

    >>> allows_file(["/models"], "/models/a.skops"), allows_file(["/models"], "/models/../etc/a.skops")
    (True, False)
    >>> allows_file(["s3://acme/models"], "s3://acme/models/a"), allows_file(["s3://acme/models"], "s3://acme/models2/a")
    (True, False)
    """
    path = local_path(uri)
    if path is None:
        return any(_is_below(uri, entry) for entry in entries if local_path(entry) is None)
    try:
        resolved = Path(path).resolve()
        places = (local_path(entry) for entry in entries if "/" in entry)
        return any(resolved.is_relative_to(Path(place).resolve()) for place in places if place is not None)
    except (OSError, ValueError, RuntimeError):  # a name that no file system takes, or links that go round in a circle
        return False


def local_path(uri: str) -> str | None:
    """The path of a file on this machine; None for a URI of something elsewhere.

    >>> local_path("models/a.onnx"), local_path("file:///models/a.onnx"), local_path("s3://acme/a.onnx")
    ('models/a.onnx', '/models/a.onnx', None)
    """
    if uri.startswith("file://"):
        return uri.removeprefix("file://")
    return None if "://" in uri else uri


def _is_below(uri: str, entry: str) -> bool:
    """Whether one URI is another or below it; never by what a server could read as a way out (`..`, `%`, `?`)."""
    try:
        asked, given = urlsplit(uri), urlsplit(entry)
    except ValueError:
        return False
    if uri == entry:
        return True
    if (asked.scheme, asked.netloc) != (given.scheme, given.netloc) or asked.query or asked.fragment:
        return False
    path, place = unquote(asked.path), unquote(given.path).rstrip("/")
    if "%" in path or "\\" in path or any(part in {".", ".."} for part in path.split("/")):
        return False
    return path == place or path.startswith(f"{place}/")


def allows_url(entries: Iterable[str], url: str) -> bool:
    """Whether a URL is one of the entries or below one.

    >>> allows_url(["http://models:8080/v2"], "http://models:8080/v2/models/digits"), allows_url(["http://a"], "http://ab")
    (True, False)
    >>> allows_url(["http://models/v2"], "http://models/v2/../admin"), allows_url(["http://a"], "http://a:80@b")
    (False, False)
    """
    asked = plain_url(url)
    written = [plain_url(entry) for entry in entries if "://" in entry]
    return asked is not None and any(entry is not None and _holds(entry, asked) for entry in written)


def plain_url(url: str) -> SplitResult | None:
    """The parts of an `http` or `https` URL that every server and client reads alike; None for any other.

    >>> plain_url("https://models/v2").hostname, plain_url("ftp://models"), plain_url("http://models/%2e%2e")
    ('models', None, None)
    """
    if not (url.isascii() and url.isprintable()) or " " in url or any(sign in url for sign in _AMBIGUOUS):
        return None
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or a bracket that is not closed
        return None
    return parts if usable and "//" not in parts.path and not {".", ".."} & set(_segments(parts)) else None


def _holds(entry: SplitResult, asked: SplitResult) -> bool:
    segments = _segments(entry)
    return _server(entry) == _server(asked) and _segments(asked)[: len(segments)] == segments


def _server(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]


def _segments(parts: SplitResult) -> list[str]:
    path = parts.path.strip("/")
    return path.split("/") if path else []


def not_allowed(what: str, entries: Iterable[str], key: AllowKey, *missing: str) -> ModelNotLoaded:
    """The error that says what may be loaded, and the key and the entries of `[models]` that would allow more."""
    allowed = ", ".join(entries) or "nothing"
    short = allowed if len(allowed) <= _SHOWN else shown(allowed)[1:-1]
    return ModelNotLoaded(
        f"{what} is outside of what this process may load ({short}): if you trust it, add "
        f"{', '.join(map(repr, missing))} to [models] {key} of the process that loads it"
    )
