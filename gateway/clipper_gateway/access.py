"""Who may ask the gateway, and what: holders of API keys, holders of an issuer's tokens, or anybody."""

import logging
import time
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from clipper_agents.observability.logging import event
from clipper_agents.settings.sections import GatewaySection
from clipper_gateway.callers import RIGHTS, Caller, Shares, anybody_at, holder_of
from clipper_gateway.errors import Refusal
from clipper_gateway.keys import SECRET_PREFIX, ApiKey, KeyRing, digest_of
from clipper_gateway.served_call import ServedCall
from clipper_gateway.tokens import INVALID_TOKEN, TokenClaims, TokenVerifier, is_loopback
from clipper_stream.errors import InvalidSetting

logger = logging.getLogger(__name__)
_NO_TOKEN = {"www-authenticate": "Bearer"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Tells callers by their keys or tokens; with neither a ring nor a verifier everybody is let in.

    The `rate` is of callers whose key or token states none; the gateway listens on `address`.
    """

    keys: KeyRing | None = None
    tokens: TokenVerifier | None = None
    address: str = "127.0.0.1"
    shares: Shares = field(default_factory=Shares)
    rate: float | None = None

    @classmethod
    def from_settings(cls, section: GatewaySection) -> "Access":
        if not (section.keys_file or section.oidc_issuer or section.insecure or is_loopback(section.address)):
            raise InvalidSetting(
                f"anybody who reaches {section.address} could ask: make a key by `clipper-stream keys create NAME` and "
                "name its file as gateway.keys_file, or set gateway.insecure = true"
            )
        keys = KeyRing(Path(section.keys_file)) if section.keys_file else None
        tokens = None
        if section.oidc_issuer:
            tokens = TokenVerifier(section.oidc_issuer, section.oidc_audience or "", section.oidc_jwks_url)
        shares = Shares(section.max_body_bytes, section.trusted_proxies)
        return cls(keys=keys, tokens=tokens, address=section.address, shares=shares, rate=section.rate)

    @property
    def is_open(self) -> bool:
        """Whether callers need no credentials."""
        return self.keys is None and self.tokens is None

    @property
    def is_of_this_machine(self) -> bool:
        """Whether callers need no credentials because they are on this machine."""
        return self.is_open and is_loopback(self.address)

    async def identify(self, call: ServedCall) -> Caller:
        """Return who sends a call, by `authorization` or `x-api-key`; it counts for the caller's rate."""
        authorization, api_key = call.headers.get("authorization"), call.headers.get("x-api-key")
        try:
            caller = await self._caller(authorization, api_key, call.peer)
        except Refusal as refusal:
            if authorization or api_key:
                self._note_failure(refusal, "credentials refused", call.peer)
            raise
        self.shares.spend(caller)
        return caller

    async def sign_in(self, secret: str, address: str) -> Callable[[], Caller]:
        """Return what says whose an API key or a token is, as long as that is in force; the secret is not kept."""
        if wait_s := self.shares.failures_wait_s(f"a sign-in failed {holder_of(address)}"):
            raise Refusal(429, f"too many sign-ins have failed: wait {wait_s:.0f} s", retry_after_s=wait_s)
        try:
            if (keys := self.keys) is not None and secret.startswith(SECRET_PREFIX):
                digest = digest_of(secret)
                self._holder(keys.find(secret))
                return lambda: self._holder(keys.in_force(digest))
            claims = await self._claims(secret)
        except Refusal as refusal:
            self._note_failure(refusal, "a sign-in failed", address)
            raise

        def holder() -> Caller:
            if time.time() >= claims.exp:
                raise Refusal(401, "the token's time is over: sign in again", headers=INVALID_TOKEN)
            return self._bearer(claims)

        return holder

    def _note_failure(self, refusal: Refusal, what: str, address: str) -> None:
        """Count wrong credentials of an address; the log has as many as are counted."""
        if refusal.status == 401 and not self.shares.failures_wait_s(of := f"{what} {holder_of(address)}"):  # noqa: PLR2004
            self.shares.failed(of)
            event(logger, what, logging.WARNING, peer=address, reason=refusal)

    async def _caller(self, authorization: str | None, api_key: str | None, address: str) -> Caller:
        scheme, _, bearer = (authorization or "").strip().partition(" ")
        if scheme.lower() == "basic":
            with suppress(ValueError):  # of `https://NAME:KEY@gateway`, which is all that some controllers can send
                scheme, bearer = "bearer", b64decode(bearer).decode().partition(":")[2]
        if scheme and (scheme.lower() != "bearer" or not bearer):
            raise Refusal(401, "the authorization header holds no bearer token: send Bearer TOKEN", headers=_NO_TOKEN)
        if api_key and bearer and api_key != bearer:
            raise Refusal(400, "x-api-key and authorization hold different credentials: send one of them")
        if api_key or bearer.startswith(SECRET_PREFIX):
            return self._holder(self.keys.find(api_key or bearer) if self.keys else None)
        if bearer:
            return self._bearer(await self._claims(bearer))
        if not self.is_open:
            raise Refusal(401, "no credentials: send x-api-key: KEY or authorization: Bearer TOKEN", headers=_NO_TOKEN)
        return anybody_at(address)

    async def _claims(self, token: str) -> TokenClaims:
        if self.tokens is None:
            raise Refusal(401, "bearer tokens are not accepted here: send an API key", headers=INVALID_TOKEN)
        return await self.tokens.claims(token)

    def _bearer(self, claims: TokenClaims) -> Caller:
        issuer = "" if self.tokens is None else self.tokens.issuer
        applications = claims.clipper_applications
        rights = frozenset(right for right in RIGHTS if f"clipper:{right}" in claims.scopes)
        allowed = frozenset(applications) if isinstance(applications, list) else None
        return Caller(f"{claims.sub} of {issuer}", allowed, rights, claims.clipper_rate or self.rate)

    def _holder(self, key: ApiKey | None) -> Caller:
        if key is None:
            raise Refusal(401, "the API key is unknown or revoked: ask for another", headers=INVALID_TOKEN)
        applications = None if key.applications is None else frozenset(key.applications)
        return Caller(key.name, applications, frozenset(key.rights), key.rate or self.rate)

    def notice(self) -> str:
        """Return the line for the log at start that says who may ask."""
        if self.is_open:
            who = "on this machine" if is_loopback(self.address) else "who reaches this machine"
            return f"anybody {who} may ask: no keys are configured ({self.address} only)"
        keys = [f"holders of {len(self.keys.by_digest)} API keys in {self.keys.path}"] if self.keys else []
        tokens = [f"holders of tokens of {self.tokens.issuer} for {self.tokens.audience}"] if self.tokens else []
        return f"{' and '.join(keys + tokens)} may ask"
