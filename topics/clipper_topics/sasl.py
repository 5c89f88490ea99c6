"""Tokens for SASL OAUTHBEARER (KIP-255), and logging in again before a broker ends the session (KIP-368).

Rules of this file:
- A broker says how long a session lasts. Before its end the connection logs in again; requests wait meanwhile.
- The next token is there before requests have to wait for it. Without one the session goes on to its end.
- One connection to Kafka has one source of tokens, whose clients share a token for four fifths of its life.
- No message and no log line contains a token.
"""

import asyncio
import base64
import importlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from aiokafka import conn
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError, KafkaError, SaslAuthenticationFailed
from aiokafka.protocol.admin import SaslAuthenticateRequest, SaslHandShakeRequest

logger = logging.getLogger(__name__)

RENEWED_AFTER = 0.8
"""Of the life of a token, or of a session."""
RETRY_S = 1.0
LEAST_SESSION_S = 1.1
"""Brokers take no further log-in within a second."""
ANSWER_S = 10.0
"""For a token server."""
MSK = "aws-msk-iam"
"""A token provider that needs no code of one's own."""


class TokenUnavailable(KafkaConnectionError):  # type: ignore[misc]  # aiokafka is untyped
    """The source of tokens does not answer, or raises: it may pass by itself."""


class Token(NamedTuple):
    """What proves who a client is, and for how many seconds; None: nobody says."""

    text: str
    life_s: float | None


# --- tokens ---------------------------------------------------------------------------------------------------------
class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Gives aiokafka the tokens of a function, which is called in a thread."""

    def __init__(self, name: str, request: Callable[[], Token], extensions: Mapping[str, str]) -> None:
        self._name, self._request, self._extensions = name, request, dict(extensions)
        self._lock, self._token, self._renewed_at_s = threading.Lock(), "", 0.0

    async def token(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride] (of no type)
        """The token that there is, or the next one.

        Raises:
            SaslAuthenticationFailed: the token server refuses the client.
            TokenUnavailable: it does not answer, or the function raises.
        """
        return await asyncio.to_thread(self._current)

    def extensions(self) -> dict[str, str]:
        return self._extensions

    def _current(self) -> str:
        with self._lock:
            if time.monotonic() >= self._renewed_at_s:
                try:
                    self._token, life_s = self._request()
                except KafkaError:
                    raise
                except Exception as error:
                    raise TokenUnavailable(f"no token from {self._name}: {error}") from error
                self._renewed_at_s = time.monotonic() + RENEWED_AFTER * (life_s or 0.0)
            return self._token


def oidc_tokens(url: str, client_id: str, secret: str, scope: str | None) -> Callable[[], Token]:
    """Tokens by client credentials (RFC 6749, 4.4) of an OpenID Connect server's token endpoint."""
    import urllib.error  # noqa: PLC0415 (a fiftieth of a second, which few need)
    import urllib.parse  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415

    fields = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
    pair = ":".join(map(urllib.parse.quote_plus, (client_id, secret)))
    headers = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}", "Accept": "application/json"}
    request = urllib.request.Request(url, urllib.parse.urlencode(fields).encode(), headers)  # noqa: S310 (checked)

    def ask() -> Token:
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code not in (400, 401, 403):
                raise
            raise SaslAuthenticationFailed(f"the token server refuses client {client_id!r} ({error.code})") from error
        return Token(found["access_token"], float(found.get("expires_in", 0.0)) or None)

    return ask


def msk_tokens(bootstrap: str) -> Callable[[], Token]:
    """Tokens of AWS IAM for Amazon MSK, signed with the credentials that boto3 finds."""
    from aws_msk_iam_sasl_signer import MSKAuthTokenProvider  # noqa: PLC0415 (an extra)

    region = re.search(r"\.([a-z]+(?:-[a-z]+)+-\d+)\.amazonaws\.", bootstrap)

    def sign() -> Token:
        text, ends_at_ms = MSKAuthTokenProvider.generate_auth_token(region[1] if region else None)
        return Token(text, ends_at_ms / 1000 - time.time())

    return sign


def own_tokens(path: str) -> Callable[[], Token]:
    """Tokens of a function without arguments, `module:function`; how long one lives is read in it, if it is a JWT."""
    module, _, name = path.partition(":")
    function = getattr(importlib.import_module(module), name)

    def call() -> Token:
        text = function()
        return Token(text, _life_s(text))

    return call


def _life_s(token: str) -> float | None:
    try:
        claims = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"]) - time.time()
    except (IndexError, KeyError, TypeError, ValueError):
        return None


# --- sessions -------------------------------------------------------------------------------------------------------
class SaslConnection(conn.AIOKafkaConnection):  # type: ignore[misc]
    """aiokafka's connection, which logs in again before its session ends."""

    _session_s = 0.0
    _renewal: "asyncio.Task[None] | None" = None
    _held: "asyncio.Future[None] | None" = None
    """Requests wait for it while the connection logs in again."""

    async def _do_sasl_handshake(self) -> None:
        await super()._do_sasl_handshake()
        if self._session_s and self._renewal is None:
            self._renewal = asyncio.ensure_future(self._renew())

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """Send a request, after a log-in that is under way, and return what waits for its answer."""
        if isinstance(request, SaslAuthenticateRequest):
            return self._session_noted(super().send(request, expect_response))
        if self._held is None or isinstance(request, SaslHandShakeRequest):
            return super().send(request, expect_response)
        return self._send_later(self._held, request, expect_response)

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close, and log in no more."""
        if self._renewal is not None and self._renewal is not asyncio.current_task(self._loop):
            self._renewal.cancel()
        return super().close(*args, **kwargs)

    def authenticator_oauth(self) -> "OAuthAuthenticator":
        return OAuthAuthenticator(sasl_oauth_token_provider=self._sasl_oauth_token_provider)

    async def _session_noted(self, answer: Any) -> Any:
        response = await answer
        self._session_s = getattr(response, "session_lifetime_ms", 0) / 1000
        return response

    async def _send_later(self, held: "asyncio.Future[None]", request: Any, expect_response: bool) -> Any:
        await asyncio.wait([held])
        return await super().send(request, expect_response)

    async def _renew(self) -> None:
        while self._session_s:
            await asyncio.sleep(max(LEAST_SESSION_S, self._session_s * RENEWED_AFTER))
            while not await self._has_token():  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(RETRY_S)
            self._held = self._loop.create_future()
            try:
                await super()._do_sasl_handshake()
            except (KafkaError, OSError, TimeoutError) as error:
                logger.warning("cannot log in again at %s:%s: %s", self._host, self._port, error)
                return
            finally:
                self._held.set_result(None)
                self._held = None

    async def _has_token(self) -> bool:
        try:
            if self._sasl_oauth_token_provider is not None:
                await self._sasl_oauth_token_provider.token()
        except KafkaError as error:
            logger.warning("the session at %s:%s ends soon: %s", self._host, self._port, error)
            return False
        return True


class OAuthAuthenticator(conn.OAuthAuthenticator):  # type: ignore[misc]
    """aiokafka's, which takes a broker's refusal for consent: the broker says why once it has the last word."""

    async def step(self, payload: bytes | None) -> Any:
        """The next words to the broker, after its own; None at the end (RFC 7628, 3.2.3)."""
        return (b"\x01", True) if payload else await super().step(payload)


def install() -> None:
    """Have all clients of this process log in so; a second call changes nothing."""
    conn.AIOKafkaConnection = SaslConnection
