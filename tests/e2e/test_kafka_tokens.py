"""A Kafka that asks for tokens, which end under traffic."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest
from e2e.programs import Program, environment, run_here
from e2e.token_kafka import LIFE_S, SECRET, UNSIGNED, TokenKafka, TokenServer

from clipper_agents import exits
from clipper_stream.client import AccessRefused, BrokerUnavailable
from clipper_stream.client.access import check_access
from clipper_topics import sasl
from clipper_topics.connection import KafkaConnection

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parents[2] / "examples/clipper.toml"
SECONDS = 3 * LIFE_S // 2


@pytest.fixture(scope="module")
def tokens() -> Iterator[TokenServer]:
    with TokenServer().running() as tokens:
        yield tokens


@pytest.fixture(scope="module")
def kafka(tokens) -> Iterator[TokenKafka]:
    with TokenKafka(tokens).running() as kafka:
        yield kafka


@pytest.fixture
def importable(tmp_path, monkeypatch) -> Path:
    """A folder from which this process and those that it starts import `unsigned`."""
    (tmp_path / "unsigned.py").write_text(UNSIGNED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("listener", [pytest.param("unsigned", marks=pytest.mark.long), "signed"])
def test_tokens_that_end_under_traffic_lose_nothing_and_restart_nothing(kafka, importable, listener):
    environ = environment(**kafka.of(listener), CLIPPER_KAFKA_PREFIX=listener, PYTHONPATH=str(importable))
    load = "loadgen", "--application", "sums", "--rate", "50", "--seconds", str(SECONDS)
    with Program("up", "--config", str(EXAMPLE), folder=importable / "up", environ=environ) as up:
        up.ready()
        before, children = kafka.tokens.given, {one.pid for one in up.children()}
        report = json.loads(
            run_here(*load, "--feedback-delay-ms", "1", "--json", "-", folder=importable, environ=environ).out
        )
        assert {one.pid for one in up.children()} == children
        up.signal(signal.SIGTERM)
        assert up.ended() == exits.OK
    assert report["queries"] == report["answered"] == report["feedback_sent"] > 25 * SECONDS
    assert "restart" not in up.log
    assert (kafka.tokens.given - before >= 2) == (listener == "signed")
    assert SECRET not in up.log


async def test_a_connection_logs_in_again_and_stays(kafka, monkeypatch):
    """While requests are under way, for as long as the token server answers."""
    connection = KafkaConnection.from_environment(kafka.of("signed"))
    client, renewed = AIOKafkaClient(**connection.aiokafka()), asyncio.Queue()
    noted = sasl.SaslConnection._session_noted

    async def counted(self, answer):
        renewed.put_nowait(self)
        return await noted(self, answer)

    monkeypatch.setattr(sasl.SaslConnection, "_session_noted", counted)
    await client.bootstrap()
    try:
        node = client.get_random_node()
        asking, sessions = True, Counter()

        async def ask() -> None:
            while asking:
                await client.send(node, MetadataRequest([]))

        async def ask_on() -> None:
            while asking:
                with suppress(KafkaError):  # a machine that stalls for a second misses the end of a session
                    await ask()

        questions = [asyncio.ensure_future(ask_on()) for _ in range(8)]
        while max(sessions.values(), default=0) < 3:
            sessions[await renewed.get()] += 1
        asking = False
        await asyncio.gather(*questions)
        kafka.tokens.is_away = asking = True
        with pytest.raises(KafkaError):
            await ask()
        kafka.tokens.is_away = False
        answer = None
        while answer is None:
            with suppress(KafkaError):
                answer = await client.send(node, MetadataRequest([]))
    finally:
        kafka.tokens.is_away = False
        await client.close()


async def test_who_is_not_given_a_token_or_let_in_by_it_is_told_so_in_one_line(kafka, tokens, importable):
    def entering(listener, **other):
        return KafkaConnection.from_environment({**kafka.of(listener), **other})

    with pytest.raises(AccessRefused, match=r"refuses user 'ada': the token server refuses client 'ada' \(401\)"):
        await check_access(entering("signed", KAFKA_SASL_PASSWORD="wrong"))
    (importable / "wrong.py").write_text("def token(): return 'no.token.at_all'\ndef broken(): raise KeyError('x')")
    with pytest.raises(AccessRefused, match="refuses the token of wrong:token"):
        await check_access(entering("unsigned", KAFKA_SASL_TOKEN_PROVIDER="wrong:token"))
    with pytest.raises(BrokerUnavailable, match=r"cannot log in to Kafka .*no token from wrong:broken"):
        await check_access(entering("unsigned", KAFKA_SASL_TOKEN_PROVIDER="wrong:broken"))
    tokens.is_away = True
    try:
        with pytest.raises(BrokerUnavailable, match=f"no token from {tokens.url}/token: HTTP Error 503"):
            await check_access(entering("signed", KAFKA_SASL_TOKEN_SCOPE="another client"))
    finally:
        tokens.is_away = False
