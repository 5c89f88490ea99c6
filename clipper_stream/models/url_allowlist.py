"""Which servers a process may ask: URLs held against the entries of `allowed` that have `://`.

Rules of this file:
- Whoever can write to the control topic must not have this process send requests into its network: a URL is asked when
  an entry of the operator's has the same scheme, host and port, and a path that the URL's begins with, by segments.
- What two programs may read differently is below nothing: users, escapes, `..`, an empty segment, a query, a backslash.

Source: RFC 3986, sections 3 and 6.2.
"""

from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

_PORTS = {"http": 80, "https": 443}
_AMBIGUOUS = "@%\\?#"
"""Users and passwords, escapes, what some take for a slash, and what ends a path."""


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
