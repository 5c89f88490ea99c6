"""A Kafka that lets in who has a token of OAUTHBEARER, and a server that gives such tokens, which live briefly."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from e2e.programs import reserved_port
from joserfc import jwt
from joserfc.jwk import RSAKey

from clipper_agents.broker import EmbeddedBroker
from clipper_agents.broker.properties import LOOPBACK

NAME, SECRET, AUDIENCE = "ada", "correct-horse", "kafka"
LIFE_S = 8
"""A fifth of which is longer than the second within which a broker takes no further log-in."""
UNSIGNED = f"""
import base64, json, time

def token():
    parts = {{"alg": "none"}}, {{"sub": "{NAME}", "iat": time.time(), "exp": time.time() + {LIFE_S}}}
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."
"""
"""A module with a function that makes tokens which Kafka's own validator takes without a signature."""


class TokenServer:
    """Gives tokens by client credentials, and publishes its key.

    Attributes:
        given: How many tokens it gave.
        is_away: While it answers nobody but by 503.
    """

    def __init__(self) -> None:
        self.given, self.is_away = 0, False
        self._key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"}, private=True)

    @contextmanager
    def running(self) -> Iterator["TokenServer"]:
        of = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, {"keys": [of._key.as_dict(private=False)]})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                pair = base64.b64encode(f"{NAME}:{SECRET}".encode()).decode()
                if of.is_away:
                    self._answer(503, {})
                elif self.headers["authorization"] != f"Basic {pair}":
                    self._answer(401, {"error": "invalid_client"})
                else:
                    self._answer(200, of._token())

            def _answer(self, status: int, value: dict[str, Any]) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
            self.url = f"http://{LOOPBACK}:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def _token(self) -> dict[str, Any]:
        self.given += 1
        now_s = int(time.time())
        claims = {"sub": NAME, "aud": AUDIENCE, "iat": now_s, "exp": now_s + LIFE_S}
        text = jwt.encode({"alg": "RS256", "kid": "one"}, claims, self._key)
        return {"access_token": text, "expires_in": LIFE_S, "token_type": "Bearer"}


class TokenKafka:
    """One broker, whose listener `unsigned` takes tokens without a signature and `signed` those of a token server."""

    def __init__(self, tokens: TokenServer) -> None:
        self.tokens = tokens

    @contextmanager
    def running(self) -> Iterator["TokenKafka"]:
        with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
            patch.setenv(
                "JAVA_TOOL_OPTIONS", f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self.tokens.url}/keys"
            )
            port, *others, controller = (stack.enter_context(reserved_port()) for _ in range(4))
            self.plain, self.unsigned, self.signed = (f"{LOOPBACK}:{each}" for each in (port, *others))
            settings = self._properties(f"{LOOPBACK}:{controller}")
            stack.enter_context(EmbeddedBroker(port=port, extra_properties=settings, ports=lambda: controller))
            yield self

    def _properties(self, controller: str) -> dict[str, object]:
        listeners = f"PLAINTEXT://{self.plain},UNSIGNED://{self.unsigned},SIGNED://{self.signed}"
        module = "org.apache.kafka.common.security.oauthbearer"
        found = {
            "listeners": f"{listeners},CONTROLLER://{controller}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map":
                "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,UNSIGNED:SASL_PLAINTEXT,SIGNED:SASL_PLAINTEXT",
            "connections.max.reauth.ms": 60_000,  # else sessions outlive their tokens
            "listener.name.unsigned.oauthbearer.sasl.jaas.config":
                f'{module}.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
            "listener.name.signed.oauthbearer.sasl.jaas.config": f"{module}.OAuthBearerLoginModule required;",
            "listener.name.signed.oauthbearer.sasl.server.callback.handler.class":
                f"{module}.OAuthBearerValidatorCallbackHandler",
            "listener.name.signed.sasl.oauthbearer.jwks.endpoint.url": f"{self.tokens.url}/keys",
            "listener.name.signed.sasl.oauthbearer.expected.audience": AUDIENCE,
        }  # fmt: skip
        return found | {f"listener.name.{one}.sasl.enabled.mechanisms": "OAUTHBEARER" for one in ("unsigned", "signed")}

    def of(self, listener: str) -> dict[str, str]:
        """Environment variables of who logs in at a listener."""
        common = {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_MECHANISM": "OAUTHBEARER"}
        if listener == "unsigned":
            return common | {"KAFKA_BOOTSTRAP_SERVERS": self.unsigned, "KAFKA_SASL_TOKEN_PROVIDER": "unsigned:token"}
        who = {"KAFKA_SASL_USERNAME": NAME, "KAFKA_SASL_PASSWORD": SECRET}
        url = f"{self.tokens.url}/token"
        return common | who | {"KAFKA_BOOTSTRAP_SERVERS": self.signed, "KAFKA_SASL_TOKEN_URL": url}
