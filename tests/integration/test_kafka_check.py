"""What `kafka check` says of a Kafka as providers offer it, and that a deployment runs where nothing is missing."""

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from builders.provider_proxy import PROVIDERS, ProviderProxy
from e2e.programs import Program, environment, reserved_port, run_here

from clipper_agents import exits
from clipper_agents.broker import EmbeddedBroker
from clipper_agents.broker.properties import LOOPBACK

pytestmark = [pytest.mark.integration, pytest.mark.slow]
EXAMPLE = Path(__file__).parents[2] / "examples/clipper.toml"


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int]]:
    """Of a broker, and where it says that it is: a proxy may listen there."""
    with ExitStack() as stack:
        broker, proxy, inner, controller = (stack.enter_context(reserved_port()) for _ in range(4))
        listeners = f"PLAINTEXT://{LOOPBACK}:{broker},INNER://{LOOPBACK}:{inner}"
        where = {
            "listeners": f"{listeners},CONTROLLER://{LOOPBACK}:{controller}",
            "advertised.listeners": listeners.replace(str(broker), str(proxy)),
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,INNER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "INNER",
        }
        stack.enter_context(EmbeddedBroker(port=broker, extra_properties=where, ports=lambda: controller))
        yield broker, proxy


SHORT = {"Event Hubs, Standard", "old brokers"}
ALL = [name if name in SHORT else pytest.param(name, marks=pytest.mark.long) for name in PROVIDERS]


@pytest.mark.parametrize("name", ALL)
async def test_the_check_tells_what_a_provider_lacks_and_what_it_calls_fine_works(ports, tmp_path, name):
    provider, (broker, proxy) = PROVIDERS[name], ports
    prefix = "".join(char for char in name.lower() if char.isalnum())
    environ = environment(KAFKA_BOOTSTRAP_SERVERS=f"{LOOPBACK}:{proxy}", CLIPPER_KAFKA_PREFIX=prefix)

    def check() -> dict[str, str]:
        found = run_here("kafka", "check", "--json", folder=tmp_path, environ=environ)
        rows = [json.loads(line) for line in found.out.splitlines()]
        assert (found.code == exits.SETUP) == any(row["state"] == "missing" for row in rows), found
        assert all(row["says"] for row in rows)
        return {row["what"].replace(prefix, "PREFIX"): row["state"] for row in rows}

    def serve() -> None:
        with Program("up", "--config", str(EXAMPLE), folder=tmp_path, environ=environ) as up:
            up.ready()
            found = run_here("predict", "sums", "[1, 2]", folder=tmp_path, environ=environ)
            assert json.loads(found.out)["application"] == "sums"
            up.signal(signal.SIGTERM)
            assert up.ended() == exits.OK

    async with ProviderProxy(provider, LOOPBACK, broker).running(LOOPBACK, proxy):
        found = await asyncio.to_thread(check)
        assert {what: state for what, state in found.items() if state != "fine"} == provider.says
        if "missing" not in found.values():
            assert {
                "connection",
                "topic PREFIX.control",
                "transactions",
                "large records",
                "consumer groups",
            } <= found.keys()
            await asyncio.to_thread(serve)
