"""Who looks at the console, and whether a request was sent by one of its own pages.

Rules of this file:
- An API key or token is asked for once and not kept. A session knows who its holder is, while that is in force.
- A browser sends a cookie also when another site has it do so: what changes anything carries the session's token too,
  which only the console's pages know, and comes from no other origin.
- Without keys, whoever uses this machine may look and act. A request that names another host may be any web page's, and
  at an address that others reach nobody may act.
"""

import hmac
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from starlette.requests import cookie_parser

from clipper_agents.observability.logging import event
from clipper_gateway.access import Access
from clipper_gateway.callers import ANYBODY, Caller, bounded
from clipper_gateway.errors import Refusal
from clipper_gateway.rest import names_this_machine
from clipper_gateway.served_call import ServedCall
from clipper_gateway.tokens import is_loopback
from clipper_stream.errors import shown

logger = logging.getLogger(__name__)

COOKIE = "clipper-console"
LASTS_S = 12 * 3600
MOST_SESSIONS, MOST_OF_CALLER = 10_000, 20
"""Of all and of one caller, whose oldest one ends when there are more."""
_READER = replace(ANYBODY, rights=frozenset({"read"}))


class ConsoleSession(NamedTuple):
    """A browser that has signed in: `holder` says by whose key, or raises `Refusal`; it ends at `ends_s`."""

    name: str
    holder: Callable[[], Caller]
    csrf: str
    ends_s: float


class Sessions:
    """The browsers that have signed in to this process."""

    def __init__(self, access: Access, *, is_secure: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._access, self._is_secure, self._clock = access, is_secure, clock
        self._open = ConsoleSession(ANYBODY.name, lambda: ANYBODY, secrets.token_urlsafe(32), float("inf"))
        self._sessions: dict[str, ConsoleSession] = {}

    @property
    def is_open(self) -> bool:
        return self._access.is_open

    async def identify(self, call: ServedCall) -> Caller:
        if self.is_open and not names_this_machine(host := call.headers.get("host", "")):
            what = f"without keys the console is not shown at {shown(host)}"
            raise Refusal(403, f"{what}: use http://localhost, or make a key by `clipper-stream keys create`")
        if self.is_open and not is_loopback(self._access.address):
            return _READER
        if _has_credentials(call.headers) and not self.is_open:
            return await self._access.identify(call)
        session = self._session_of(call.headers)
        if session is None:
            raise Refusal(401, "nobody is signed in, or the session is over")
        return session.holder()

    def csrf_of(self, headers: Mapping[str, str]) -> str:
        """Return the token for the forms of a page; empty where there is no session."""
        session = self._session_of(headers)
        return session.csrf if session is not None else ""

    def check_forgery(self, headers: Mapping[str, str], given: str) -> None:
        """Check that a page of this console has sent a request that changes something.

        The header `origin` was compared with the host before, as for every request.
        """
        _check_site(headers)
        if _has_credentials(headers) and not self.is_open:
            return  # no browser adds these by itself
        expected, found = self.csrf_of(headers), headers.get("x-csrf-token") or given
        if not expected or not hmac.compare_digest(expected.encode(), found.encode()):
            raise Refusal(403, "the page is older than the session, or is not the console's: reload it and try again")

    async def sign_in(self, call: ServedCall, secret: str) -> str:
        """Begin a session of the holder of a key or token, and return the value of the header `set-cookie`."""
        _check_site(call.headers)
        holder = await self._access.sign_in(secret.strip(), call.peer)
        key, name = secrets.token_urlsafe(32), holder().name
        own = [each for each, session in self._sessions.items() if session.name == name]
        if len(own) >= MOST_OF_CALLER:
            del self._sessions[own[0]]
        session = ConsoleSession(name, holder, secrets.token_urlsafe(32), self._clock() + LASTS_S)
        bounded(self._sessions, MOST_SESSIONS)[key] = session
        event(logger, "signed in", caller=name, peer=call.peer)
        return self._cookie(call, key, LASTS_S)

    def sign_out(self, call: ServedCall) -> str:
        """End the session of a request, and return the value of the header `set-cookie`."""
        if (ended := self._sessions.pop(_key_of(call.headers), None)) is not None:
            event(logger, "signed out", caller=ended.name, peer=call.peer)
        return self._cookie(call, "", 0)

    def _cookie(self, call: ServedCall, value: str, max_age_s: int) -> str:
        is_secure = self._is_secure or call.headers.get("origin", "").startswith("https://")  # a proxy has ended TLS
        rules = f"Max-Age={max_age_s}; Path=/console; HttpOnly; SameSite=Strict"
        return f"{COOKIE}={value}; {rules}{'; Secure' if is_secure else ''}"

    def _session_of(self, headers: Mapping[str, str]) -> ConsoleSession | None:
        session = self._open if self.is_open else self._sessions.get(_key_of(headers))
        return session if session is not None and self._clock() < session.ends_s else None


def _check_site(headers: Mapping[str, str]) -> None:
    if (site := headers.get("sec-fetch-site", "same-origin")) != "same-origin":
        raise Refusal(403, f"a page of another site has sent this ({shown(site)}): use the console's own pages")


def _has_credentials(headers: Mapping[str, str]) -> bool:
    return bool(headers.get("authorization") or headers.get("x-api-key"))


def _key_of(headers: Mapping[str, str]) -> str:
    return cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
