"""Bearer tokens of an OpenID Connect issuer: their signature, their claims, and the issuer's keys.

Rules of this file:
- Asymmetric algorithms only: under `none` or an HMAC, whoever has the issuer's public keys could make tokens.
- Keys come from the configured URL or the issuer's discovery document, never from one that a token names.
- No message and no log has a part of a token.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from http.client import HTTPException
from ipaddress import ip_address
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener

import msgspec
from joserfc import jwt
from joserfc.errors import ClaimError, InvalidKeyIdError, JoseError
from joserfc.jwk import Key, KeySet, import_key
from joserfc.jws import JWSRegistry

from clipper_agents.observability.logging import event
from clipper_gateway.errors import Refusal
from clipper_stream.errors import InvalidSetting, shown

T = TypeVar("T")
ALGORITHMS = ("RS256", "ES256", "PS256", "EdDSA")
INVALID_TOKEN = {"www-authenticate": 'Bearer error="invalid_token"'}
LEEWAY_S = 30
MAX_TOKEN_BYTES = 16 * 1024
MAX_VERIFIED_TOKENS = 10_000
MAX_DOCUMENT_BYTES = 2**20
TIMEOUT_S = 5.0
KEYS_VALID_S = 600.0
REFETCH_S = 10.0
"""Seconds between two fetches for a key that is unknown: anybody can name one."""
RETRY_S = 1.0
"""Seconds between two fetches while there are no valid keys."""
_logger = logging.getLogger(__name__)


class TokenClaims(msgspec.Struct, frozen=True):
    """The claims that say who sends a request, and what that caller may do; the issuer's scopes are in either form."""

    sub: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    exp: int | float
    scope: str | list[str] = ""
    scp: str | list[str] = ""
    clipper_applications: list[str] | msgspec.UnsetType = msgspec.UNSET

    @property
    def scopes(self) -> set[str]:
        """All scopes of the token."""
        return {one for claim in (self.scope, self.scp) for one in (claim.split() if isinstance(claim, str) else claim)}


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address or a host name."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class IssuerKeys:
    """The public keys of an issuer, valid for `KEYS_VALID_S`; callers that need a fetch at once share it.

    Args:
        issuer: As in the claim `iss`; its discovery document names the keys' URL where `url` is None.
        url: Of the JWKS document.
        clock: Seconds that never go back.

    Raises:
        InvalidSetting: keys from such a URL could be forged on the way.
    """

    def __init__(self, issuer: str, url: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        if not _is_trusted(url or issuer):
            raise InvalidSetting(
                f"URL {shown(url or issuer)} of the token issuer: use https://, or http:// on loopback"
            )
        self._issuer, self._url, self._clock = issuer, url, clock
        self._keys = KeySet([])
        self._tried_s = self._fetched_s = float("-inf")
        self._fetch_task: asyncio.Task[None] | None = None

    async def read(self, *, newer: bool = False) -> KeySet:
        """Return the keys; with `newer`, those after another fetch, unless the last one was `REFETCH_S` ago.

        Raises:
            Refusal: 503, the keys cannot be fetched.
        """
        if newer or self._is_stale():
            if self._fetch_task is None or self._fetch_task.done():
                if self._clock() - self._tried_s >= (REFETCH_S if newer else RETRY_S):
                    self._tried_s = self._clock()
                    self._fetch_task = asyncio.create_task(self._fetch())
            if self._fetch_task is not None:
                await asyncio.shield(self._fetch_task)  # a caller that goes away takes it from nobody
            if self._is_stale() or (newer and self._fetched_s < self._tried_s):
                raise Refusal(503, "the keys of the token issuer cannot be fetched: try again", retry_after_s=RETRY_S)
        return self._keys

    def _is_stale(self) -> bool:
        return self._clock() - self._fetched_s >= KEYS_VALID_S

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(2 * TIMEOUT_S):  # a socket's timeout begins anew with each byte
                self._keys = await asyncio.to_thread(self._download)
            self._fetched_s = self._tried_s
        except (OSError, ValueError, HTTPException) as error:
            event(_logger, "token issuer's keys not fetched", logging.WARNING, issuer=self._issuer, error=error)

    def _download(self) -> KeySet:
        url = self._url
        if url is None:
            found = _get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration", dict[str, Any])
            if found.get("issuer") != self._issuer:
                raise ValueError(f"its discovery document is that of {shown(found.get('issuer'))}")
            url = str(found.get("jwks_uri"))
        documents = _get(url, dict[str, list[dict[str, Any]]]).get("keys", [])
        return KeySet([key for key in map(_usable_key, documents) if key is not None])


def _usable_key(document: dict[str, Any]) -> Key | None:
    """The key, or None for one of a kind that is not known here: it spoils no other."""
    try:
        return import_key(document)
    except (JoseError, ValueError, TypeError, KeyError):
        return None


class _NoRedirects(HTTPRedirectHandler):
    """Leaves a redirect an error: its target could be any URL."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _is_trusted(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    return is_safe and bool(host) and "@" not in parts.netloc


def _get(url: str, record: type[T]) -> T:
    if not _is_trusted(url):
        raise ValueError(f"{shown(url)} is neither https:// nor http:// on loopback")
    direct = [ProxyHandler({})] if url.startswith("http:") else []
    with build_opener(_NoRedirects(), *direct).open(url, timeout=TIMEOUT_S) as response:
        content = response.read(MAX_DOCUMENT_BYTES + 1)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"{shown(url)} has more than {MAX_DOCUMENT_BYTES} bytes")
    return msgspec.json.decode(content, type=record)


class TokenVerifier:
    """Checks bearer tokens; the claims of one that passed are remembered until it expires, or its key has to be renewed.

    Args:
        issuer: The claim `iss`.
        audience: What the claim `aud` is or has.
        keys: The issuer's.
        clock: Seconds since the epoch.
    """

    def __init__(self, issuer: str, audience: str, keys: IssuerKeys, clock: Callable[[], float] = time.time) -> None:
        self.issuer, self.audience, self._keys, self._clock = issuer, audience, keys, clock
        self._jws = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
        self._rules = jwt.JWTClaimsRegistry(
            now=lambda: int(clock()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
        )
        self._verified: dict[bytes, tuple[float, TokenClaims]] = {}

    async def claims(self, token: str) -> TokenClaims:
        """Return the claims of a token.

        Raises:
            Refusal: 401, with the check that failed; 503, the issuer's keys cannot be fetched.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise self._refusal(f"longer than {MAX_TOKEN_BYTES} bytes")
        digest = hashlib.sha256(token.encode()).digest()
        until_s, claims = self._verified.get(digest, (0.0, None))
        if claims is None or self._clock() >= until_s:
            claims = await self._verify(token)
            self._verified.pop(digest, None)
            if len(self._verified) >= MAX_VERIFIED_TOKENS:
                del self._verified[next(iter(self._verified))]
            self._verified[digest] = min(claims.exp, self._clock() + KEYS_VALID_S), claims
        return claims

    async def _verify(self, token: str) -> TokenClaims:
        try:
            try:
                decoded = jwt.decode(token, await self._keys.read(), registry=self._jws)
            except InvalidKeyIdError:
                decoded = jwt.decode(token, await self._keys.read(newer=True), registry=self._jws)
            self._rules.validate(decoded.claims)
            return msgspec.convert(decoded.claims, TokenClaims)
        except (ClaimError, msgspec.ValidationError) as error:
            raise self._refusal(str(error)) from error
        except JoseError as error:
            raise self._refusal(error.error) from error  # its description quotes the token's header
        except (ValueError, TypeError, RecursionError) as error:
            raise self._refusal("malformed") from error

    def _refusal(self, check: str) -> Refusal:
        what = f"the bearer token is refused ({check})"
        return Refusal(401, f"{what}: get one from {self.issuer} for {self.audience}", headers=INVALID_TOKEN)
