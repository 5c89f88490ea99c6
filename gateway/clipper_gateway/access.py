"""Who may ask the gateway, and what: holders of API keys, holders of an issuer's tokens, or anybody."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from clipper_agents.settings.sections import GatewaySection
from clipper_gateway.errors import Refusal
from clipper_gateway.keys import SECRET_PREFIX, ApiKey, KeyRing, Right, digest_of
from clipper_gateway.tokens import INVALID_TOKEN, TokenClaims, TokenVerifier, is_loopback
from clipper_stream.errors import InvalidSetting, shown

RIGHTS: tuple[str, ...] = get_args(Right)
_NO_TOKEN = {"www-authenticate": "Bearer"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, with rights of `RIGHTS`; None is all applications.

    The name is that of a key, `ada`, or of a token, `ada of https://id.example.com`: no token has a key's name, nor one
    of another issuer.
    """

    name: str
    applications: frozenset[str] | None
    rights: frozenset[str]

    def require(self, right: str, application: str | None = None) -> None:
        """Check that the caller has a right, to an application where one is given."""
        if right not in self.rights:
            has = ", ".join(sorted(self.rights)) or "none"
            raise Refusal(403, f"{shown(self.name)} has no right {right!r}, has {has}: ask the operator for it")
        if application is not None and self.applications is not None and application not in self.applications:
            what = f"{shown(self.name)} may not use application {shown(application)}"
            raise Refusal(403, f"{what}, only {shown(sorted(self.applications))}: ask the operator for it")


ANYBODY = Caller("anybody", None, frozenset(RIGHTS))
NOBODY = Caller("", frozenset(), frozenset())
"""Of a request that was refused before anybody was asked for."""


def may_start(section: GatewaySection) -> bool:
    """Return whether the settings say who may ask: without keys and issuer, only this machine, or `insecure` does."""
    return bool(section.keys_file or section.oidc_issuer or section.insecure) or is_loopback(section.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Tells callers by their keys or tokens; with neither a ring nor a verifier everybody is let in.

    Attributes:
        address: On which the gateway listens.
    """

    keys: KeyRing | None = None
    tokens: TokenVerifier | None = None
    address: str = "127.0.0.1"

    @classmethod
    def from_settings(cls, section: GatewaySection) -> "Access":
        """Return the access that the settings describe."""
        if not may_start(section):
            raise InvalidSetting(
                f"anybody who reaches {section.address} could ask: make a key by `clipper-stream keys create NAME` and "
                "name its file as gateway.keys_file, or say --insecure"
            )
        keys, tokens = None, None
        if section.keys_file:
            keys = KeyRing(Path(section.keys_file))
        if section.oidc_issuer:
            tokens = TokenVerifier(section.oidc_issuer, section.oidc_audience or "", section.oidc_jwks_url)
        return cls(keys=keys, tokens=tokens, address=section.address)

    @property
    def is_open(self) -> bool:
        """Whether callers need no credentials."""
        return self.keys is None and self.tokens is None

    @property
    def is_of_this_machine(self) -> bool:
        """Whether callers need no credentials because they are on this machine."""
        return self.is_open and is_loopback(self.address)

    async def identify(self, authorization: str | None, api_key: str | None) -> Caller:
        """Return the caller who has sent these values of the headers `authorization` and `x-api-key`."""
        scheme, _, bearer = (authorization or "").strip().partition(" ")
        if scheme and (scheme.lower() != "bearer" or not bearer):
            raise Refusal(401, "the authorization header holds no bearer token: send Bearer TOKEN", headers=_NO_TOKEN)
        if api_key and bearer and api_key != bearer:
            raise Refusal(400, "x-api-key and authorization hold different credentials: send one of them")
        if api_key or bearer.startswith(SECRET_PREFIX):
            return _holder(self.keys.find(api_key or bearer) if self.keys else None)
        if bearer:
            return await self._caller_of_token(bearer)
        if not self.is_open:
            raise Refusal(401, "no credentials: send x-api-key: KEY or authorization: Bearer TOKEN", headers=_NO_TOKEN)
        return ANYBODY

    async def sign_in(self, secret: str) -> Callable[[], Caller]:
        """Return what says whose an API key or a token is, as long as that is in force; the secret is not kept."""
        caller = await self.identify(f"Bearer {secret}", None)
        if (keys := self.keys) is not None and secret.startswith(SECRET_PREFIX):
            digest = digest_of(secret)
            return lambda: _holder(keys.in_force(digest))
        until_s = (await self._claims(secret)).exp

        def holder() -> Caller:
            if time.time() >= until_s:
                raise Refusal(401, "the token's time is over: sign in again", headers=INVALID_TOKEN)
            return caller

        return holder

    async def _claims(self, token: str) -> TokenClaims:
        if self.tokens is None:
            raise Refusal(401, "bearer tokens are not accepted here: send an API key", headers=INVALID_TOKEN)
        return await self.tokens.claims(token)

    async def _caller_of_token(self, token: str) -> Caller:
        claims = await self._claims(token)
        issuer = "" if self.tokens is None else self.tokens.issuer
        applications = claims.clipper_applications
        rights = frozenset(right for right in RIGHTS if f"clipper:{right}" in claims.scopes)
        allowed = frozenset(applications) if isinstance(applications, list) else None
        return Caller(f"{claims.sub} of {issuer}", allowed, rights)

    def notice(self) -> str:
        """Return the line for the log at start that says who may ask."""
        if self.is_open:
            who = "on this machine" if is_loopback(self.address) else "who reaches this machine"
            return f"anybody {who} may ask: no keys are configured ({self.address} only)"
        keys = [f"holders of {len(self.keys.by_digest)} API keys in {self.keys.path}"] if self.keys else []
        tokens = [f"holders of tokens of {self.tokens.issuer} for {self.tokens.audience}"] if self.tokens else []
        return f"{' and '.join(keys + tokens)} may ask"


def _holder(key: ApiKey | None) -> Caller:
    if key is None:
        raise Refusal(401, "the API key is unknown or revoked: ask for another", headers=INVALID_TOKEN)
    applications = None if key.applications is None else frozenset(key.applications)
    return Caller(key.name, applications, frozenset(key.rights))
