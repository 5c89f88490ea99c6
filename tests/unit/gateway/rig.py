"""What the gateway's tests share: a clock, callers, settings without a Kafka, a log, and how a refusal is expected."""

import io
import json
from contextlib import contextmanager

import httpx
import pytest

from clipper_agents.observability.metrics import ProcessMetrics
from clipper_agents.settings.load import WorkerSettings
from clipper_agents.settings.sections import GatewaySection
from clipper_gateway.callers import ANYBODY, Caller, Shares
from clipper_gateway.errors import Refusal
from clipper_gateway.keys import make_key
from clipper_gateway.request_log import RequestLog
from clipper_gateway.served_call import ServedCall
from clipper_gateway.tokens import INVALID_TOKEN, TokenClaims
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

NO_KAFKA = KafkaConnection("127.0.0.1:9"), Catalogue()
TOKEN = "eyJhbGci.eyJzdWIi.c2lnbmVk"


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self, now_s: float = 1_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


class StubAccess:
    """Takes a right as the key of a shop that may use `texts`, and `all` as anybody's."""

    is_open = is_of_this_machine = False

    def __init__(self):
        self.shares = Shares()

    async def identify(self, call):
        key = call.headers.get("x-api-key") or call.headers.get("authorization")
        if not key:
            raise Refusal(401, "give a key", headers={"www-authenticate": "Bearer"})
        return ANYBODY if key == "all" else Caller("shop", frozenset({"texts"}), frozenset({key}))


class StubTokens:
    """A verifier that takes `TOKEN` alone, for claims of `ada`; `claimed` may be changed."""

    issuer = "https://id.example.com"

    def __init__(self, **claimed):
        self.claimed = {"sub": "ada", "exp": 1e12, **claimed}

    async def claims(self, token):
        if token != TOKEN:
            raise Refusal(401, "no such token", headers=INVALID_TOKEN)
        return TokenClaims(**self.claimed)


class KeptLog(RequestLog):
    def __init__(self, applications=()):
        self._kept = io.BytesIO()
        super().__init__(ProcessMetrics("gateway"), applications, self._kept)

    def written(self):
        self.flush()
        return [*map(json.loads, self._kept.getvalue().split(b"\n")[:-1])]


def sent(authorization=None, api_key=None, address="", **headers):
    """A call with these credentials and headers."""
    given = {"authorization": authorization, "x-api-key": api_key} | headers
    return ServedCall(headers={name: text for name, text in given.items() if text is not None}, peer=address)


def key_in(file, name="shop", *rights, **changes):
    """Make a key, by default of all applications and without a rate, and return its secret."""
    given = {"applications": None, "rights": rights or ("predict",), "rate": None, "now_ms": 7}
    return make_key(file, name, **given | changes)


def browser_of(app, url="http://127.0.0.1:8080", **headers):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=url, headers=headers)


def settings_of(folder, section=None):
    kafka, catalogue = NO_KAFKA
    return WorkerSettings(
        kafka=kafka, catalogue=catalogue, instance="gateway-0", section=section or GatewaySection(), data_dir=folder
    )


@contextmanager
def refuses(status, said=None):
    with pytest.raises(Refusal, match=said) as found:
        yield found
    assert found.value.status == status


async def refused(call, status, said=None):
    with refuses(status, said) as found:
        await call
    return found.value
