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
from contextlib import suppress
from functools import lru_cache
from http.client import HTTPException
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, build_opener

import msgspec
from joserfc import jwt
from joserfc.errors import ClaimError, InvalidKeyIdError, JoseError
from joserfc.jwk import Key, KeySet, import_key
from joserfc.jws import JWSRegistry

from clipper_agents.observability.logging import event
from clipper_gateway.callers import bounded
from clipper_gateway.errors import Refusal
from clipper_stream.errors import InvalidSetting, shown

INVALID_TOKEN = {"www-authenticate": 'Bearer error="invalid_token"'}
_REGISTRY = JWSRegistry(algorithms=("RS256", "ES256", "PS256", "EdDSA"), strict_check_header=False)
LEEWAY_S = 30
MAX_TOKEN_BYTES = 16 * 1024
MAX_VERIFIED_TOKENS = 10_000
MAX_DOCUMENT_BYTES = 2**20
TIMEOUT_S = 5.0
VALID_S = 600.0
"""Seconds for which keys, and tokens that passed under them, are good."""
REFETCH_S, RETRY_S = 10.0, 1.0
"""Seconds between fetches for a key that is unknown, which anybody can name, and while there are no good keys."""


class TokenClaims(msgspec.Struct, frozen=True):
    """The claims that say who sends a request, and what that caller may do; issuers write scopes in one form or two."""

    sub: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    exp: int | float
    scope: str | list[str] = ""
    scp: str | list[str] = ""
    clipper_applications: list[str] | msgspec.UnsetType = msgspec.UNSET
    clipper_rate: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None

    @property
    def scopes(self) -> set[str]:
        return {one for claim in (self.scope, self.scp) for one in (claim.split() if isinstance(claim, str) else claim)}


class TokenVerifier:
    """Checks bearer tokens; calls that need the issuer's keys at once share one fetch."""

    def __init__(
        self, issuer: str, audience: str, jwks_url: str | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        if not _is_trusted(jwks_url or issuer):
            raise InvalidSetting(f"token issuer {shown(jwks_url or issuer)}: use https://, or http:// on loopback")
        self.issuer, self.audience, self._jwks_url, self._clock = issuer, audience, jwks_url, clock
        self._rules = jwt.JWTClaimsRegistry(
            now=lambda: int(clock()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
        )
        self._verified: dict[bytes, tuple[float, TokenClaims]] = {}
        self._keys, self._fetched_s, self._tried_s = KeySet([]), float("-inf"), float("-inf")
        self._fetch_task: asyncio.Task[None] | None = None

    async def claims(self, token: str) -> TokenClaims:
        if len(token) > MAX_TOKEN_BYTES:
            raise self._refusal(f"longer than {MAX_TOKEN_BYTES} bytes")
        digest = hashlib.sha256(token.encode()).digest()
        until_s, claims = self._verified.pop(digest, (0.0, None))
        if claims is None or self._clock() >= until_s:
            claims = await self._verify(token)
            until_s = min(claims.exp, self._clock() + VALID_S)
        bounded(self._verified, MAX_VERIFIED_TOKENS)[digest] = until_s, claims
        return claims

    async def _verify(self, token: str) -> TokenClaims:
        try:
            try:
                decoded = jwt.decode(token, await self._read_keys(), registry=_REGISTRY)
            except InvalidKeyIdError:
                decoded = jwt.decode(token, await self._read_keys(newer=True), registry=_REGISTRY)
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

    async def _read_keys(self, *, newer: bool = False) -> KeySet:
        """The issuer's keys; with `newer`, fetched again unless that was done `REFETCH_S` ago."""
        if newer or self._passed(self._fetched_s, VALID_S):
            is_idle = self._fetch_task is None or self._fetch_task.done()
            if is_idle and self._passed(self._tried_s, REFETCH_S if newer else RETRY_S):
                self._tried_s = self._clock()
                self._fetch_task = asyncio.create_task(self._fetch())
            if self._fetch_task is not None:
                await asyncio.shield(self._fetch_task)  # a caller that goes away takes it from nobody
            if self._passed(self._fetched_s, VALID_S) or (newer and self._fetched_s < self._tried_s):
                raise Refusal(503, "the token issuer's keys cannot be fetched: try again", retry_after_s=RETRY_S)
        return self._keys

    def _passed(self, since_s: float, seconds: float) -> bool:
        return not 0.0 <= self._clock() - since_s < seconds  # nor may a clock that was set back stop a fetch

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(2 * TIMEOUT_S):  # the socket's own begins anew with each byte
                self._keys = await asyncio.to_thread(_fetched_keys, self.issuer, self._jwks_url)
            self._fetched_s = self._tried_s
        except (OSError, ValueError, TypeError, HTTPException) as error:
            logger = logging.getLogger(__name__)
            event(logger, "keys of the token issuer not fetched", logging.WARNING, issuer=self.issuer, error=error)


def _fetched_keys(issuer: str, url: str | None) -> KeySet:
    if url is None:
        found = _document(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != issuer:
            raise ValueError(f"its discovery document is of issuer {shown(found.get('issuer'))}")
        url = str(found.get("jwks_uri"))
    keys: list[Key] = []
    for document in _document(url).get("keys", ()):
        with suppress(JoseError, ValueError, TypeError, KeyError):  # one of a kind not known here spoils no other
            keys.append(import_key(document))
    return KeySet(keys)


def _document(url: str) -> dict[str, Any]:
    if not _is_trusted(url):
        raise ValueError(f"{shown(url)} is neither https:// nor http:// on loopback")
    with build_opener(_NoRedirects()).open(url, timeout=TIMEOUT_S) as response:
        content = response.read(MAX_DOCUMENT_BYTES + 1)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"{shown(url)} has more than {MAX_DOCUMENT_BYTES} bytes")
    return msgspec.json.decode(content, type=dict[str, Any])


class _NoRedirects(HTTPRedirectHandler):
    """Leaves a redirect an error: it may lead to any URL."""

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


@lru_cache
def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address or a host name."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
