"""What a process may load: packages, modules, directories and URLs, and how a name is held against them.

Rules of this file:
- A manifest may come from anybody who can write to the control topic. What it names is data until it was found here.
- An entry is one of four: `acme.models` is a package or module and all inside it, `acme.models:` is exactly this
  module, what has `://` is a place elsewhere and all below it, or one file or server there (`allowed_urls`), and what
  has a slash is a directory and all inside it, or one file.
- The list says who is trusted, not what is harmless: a public function of an allowed module can be asked for with any
  parameters, and a class of it made with any.
"""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from clipper_stream.errors import ModelNotLoaded, shown


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
        places = (local_path(entry) for entry in entries if is_path(entry) or "://" in entry)
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


def is_path(entry: str) -> bool:
    """Whether an entry is a file or directory of this machine, not a module and no URI.

    >>> is_path("/srv/models"), is_path("models/"), is_path("acme.models"), is_path("http://models:8080")
    (True, True, False, False)
    """
    return "/" in entry and "://" not in entry


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


def not_allowed(what: str, entries: Iterable[str]) -> ModelNotLoaded:
    """The error that says what may be loaded, and where more is allowed."""
    allowed = ", ".join(entries) or "nothing"
    return ModelNotLoaded(
        f"{what} is outside of what this process may load ({shown_list(allowed)}): if you trust it, add its module, "
        "directory or URL to [models] allowed of the process that loads it"
    )


def shown_list(text: str) -> str:
    """The list, short enough for a line."""
    return shown(text)[1:-1] if len(text) > _SHOWN else text


_SHOWN = 300
