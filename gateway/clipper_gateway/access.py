"""Who may ask the gateway, and what: a caller with an API key, one with a token of the issuer, or anybody."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from clipper_gateway.errors import Refusal
from clipper_gateway.keys import SECRET_PREFIX, KeyRing, Right
from clipper_gateway.tokens import INVALID_TOKEN, IssuerKeys, TokenVerifier, is_loopback
from clipper_stream.errors import InvalidSetting, shown

if TYPE_CHECKING:
    from clipper_agents.settings.sections import GatewaySection

RIGHTS: tuple[str, ...] = get_args(Right)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request.

    Attributes:
        name: Of the API key, or the token's subject.
        applications: Those that the caller may use; None: all.
        rights: Of `RIGHTS`.
    """

    name: str
    applications: frozenset[str] | None
    rights: frozenset[str]

    def require(self, right: str, application: str | None = None) -> None:
        """Check that the caller may do something, to an application where one is given.

        Raises:
            Refusal: 403.
        """
        if right not in self.rights:
            has = ", ".join(sorted(self.rights)) or "none"
            raise Refusal(403, f"{shown(self.name)} has no right {right!r}, has {has}: ask the operator for it")
        if application is not None and self.applications is not None and application not in self.applications:
            what = f"{shown(self.name)} may not use application {shown(application)}"
            raise Refusal(403, f"{what}, only {shown(sorted(self.applications))}: ask the operator for it")


ANYBODY = Caller("anybody", None, frozenset(RIGHTS))


def may_start(section: "GatewaySection") -> bool:
    """Return whether the settings say who may ask: with neither keys nor an issuer, this machine or `insecure`."""
    is_checked = section.keys_file is not None or section.oidc_issuer is not None
    return is_checked or section.insecure or is_loopback(section.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How callers are told: by API keys, by tokens, by either; with neither of them, anybody is let in.

    Attributes:
        address: On which the gateway listens.
    """

    keys: KeyRing | None = None
    tokens: TokenVerifier | None = None
    address: str = "127.0.0.1"

    @classmethod
    def from_settings(cls, section: "GatewaySection") -> "Access":
        """Return the access that the settings describe.

        Raises:
            InvalidSetting: the keys file cannot be used, the OIDC settings are not complete, or everybody would get in.
        """
        issuer, audience = section.oidc_issuer, section.oidc_audience
        if (issuer is None) != (audience is None) or (issuer is None and section.oidc_jwks_url is not None):
            raise InvalidSetting(
                "gateway.oidc_issuer and gateway.oidc_audience go together: give both or no oidc_* key"
            )
        if not may_start(section):
            raise InvalidSetting(
                f"anybody who reaches {section.address} could ask: make a key by `clipper-stream keys create NAME` and "
                "give its file as gateway.keys_file, or say --insecure"
            )
        keys = KeyRing(Path(section.keys_file)) if section.keys_file is not None else None
        tokens = None
        if issuer is not None and audience is not None:
            tokens = TokenVerifier(issuer, audience, IssuerKeys(issuer, section.oidc_jwks_url))
        return cls(keys=keys, tokens=tokens, address=section.address)

    @property
    def is_open(self) -> bool:
        """Whether anybody who reaches the gateway may ask."""
        return self.keys is None and self.tokens is None

    async def identify(self, authorization: str | None, api_key: str | None) -> Caller:
        """Return the caller who has sent these headers.

        Args:
            authorization: `authorization`.
            api_key: `x-api-key`.

        Raises:
            Refusal: 400, the headers contradict each other; 401; 429, the key's rate is used up; 503, the token
                issuer does not answer.
        """
        bearer = _bearer_token(authorization)
        if api_key and bearer and api_key != bearer:
            raise Refusal(400, "x-api-key and authorization hold different credentials: send one of them")
        if api_key or (bearer and bearer.startswith(SECRET_PREFIX)):
            return self._caller_of_key(api_key or bearer or "")
        if bearer:
            return await self._caller_of_token(bearer)
        if self.is_open:
            return ANYBODY
        raise Refusal(401, "no credentials: send x-api-key: KEY, or authorization: Bearer TOKEN", headers=_BEARER)

    def _caller_of_key(self, secret: str) -> Caller:
        key = None if self.keys is None else self.keys.find(secret)
        if key is None:
            raise Refusal(401, "the API key is unknown or revoked: ask the operator for another", headers=INVALID_TOKEN)
        applications = None if key.applications is None else frozenset(key.applications)
        return Caller(key.name, applications, frozenset(key.rights))

    async def _caller_of_token(self, token: str) -> Caller:
        if self.tokens is None:
            raise Refusal(401, "bearer tokens are not accepted here: send an API key", headers=INVALID_TOKEN)
        claims = await self.tokens.claims(token)
        applications = claims.clipper_applications
        rights = frozenset(right for right in RIGHTS if f"clipper:{right}" in claims.scopes)
        return Caller(claims.sub, frozenset(applications) if isinstance(applications, list) else None, rights)

    def notice(self) -> str:
        """Return the line for the log at start that says who may ask."""
        if self.keys is None and self.tokens is None:
            who = "on this machine" if is_loopback(self.address) else "who reaches it"
            return f"anybody {who} may ask: no keys are configured ({self.address} only)"
        keys = [] if self.keys is None else [f"holders of the {len(self.keys)} API keys in {self.keys.path}"]
        tokens = (
            [] if self.tokens is None else [f"holders of tokens of {self.tokens.issuer} for {self.tokens.audience}"]
        )
        return f"{' and '.join(keys + tokens)} may ask"


_BEARER = {"www-authenticate": "Bearer"}


def _bearer_token(authorization: str | None) -> str | None:
    if not authorization:
        return None
    scheme, _, token = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refusal(401, "the authorization header holds no bearer token: send Bearer TOKEN", headers=_BEARER)
    return token.strip()
