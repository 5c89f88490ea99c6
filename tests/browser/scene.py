"""What the console shows in its tests: a deployment with traffic, keys, and texts that try to be markup wherever texts
come from outside.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.any_client import AnyClient, Record
from e2e.gateways import PARTITIONS, Deployment, Gateway, deployed
from e2e.programs import Shell
from e2e.traffic import Traffic

from clipper_gateway.keys import make_key
from clipper_topics.connection import KafkaConnection

CONFIGURATION = Path(__file__).with_name("console.toml")
MARKUP = "<img src=x onerror=alert(1)>"
RATE = 10.0
"""Queries a second: enough for figures that move each second."""
MODELS = f"""
def raising(rows):
    raise ValueError("{MARKUP}")
"""
RIGHTS = {"ada": ["read", "operate"], "grace": ["read"], "guest": ["read"]}


@dataclass(frozen=True)
class Scene:
    """A deployment under traffic whose console asks for a key: `ada` may act, `grace` and `guest` only look."""

    deployment: Deployment
    gateway: Gateway
    client: AnyClient
    keys: Mapping[str, str]
    keys_file: Path

    def control(self) -> list[bytes | None]:
        """All that was ever written to the control topic."""
        return [record.value for record in self.client.read(self.deployment.catalogue.control)]


@contextmanager
def staged(kafka: KafkaConnection, folder: Path) -> Iterator[Scene]:
    """The scene, once its console could show everything."""
    file = folder / "keys.json"
    rest = {"applications": None, "rate": None, "now_ms": 0}
    keys = {name: make_key(file, name, rights=rights, **rest) for name, rights in RIGHTS.items()}
    (folder / "marked.py").write_text(MODELS)
    settings = {"CLIPPER_GATEWAY_KEYS_FILE": str(file)}
    with (
        deployed(kafka, folder, CONFIGURATION) as deployment,
        AnyClient(kafka.bootstrap) as client,
        Traffic(client, deployment.catalogue.prefix, PARTITIONS, RATE),
    ):
        _put_markup(deployment, client)
        with deployment.gateway("console", **settings) as gateway:
            yield Scene(deployment, gateway, client, keys, file)


def _put_markup(deployment: Deployment, client: AnyClient) -> None:
    """Say it as a user, a caller, a host and a detector, and wait until the router has said it too."""
    of, now_ms = deployment.catalogue, round(time.time() * 1000)
    query = {"query_id": MARKUP, "application": "marked", "context": MARKUP, "input": MARKUP}
    client.send_json(of.queries, query, key=MARKUP.encode())
    client.send(of.queries, MARKUP.encode(), headers={MARKUP: MARKUP.encode()})
    host = {"model": "raising:1", "instance": MARKUP, "state": "failed", "reason": MARKUP, "at_ms": now_ms}
    client.send_json(of.hosts, host, key=f"raising:1/{MARKUP}".encode())
    drift = {
        "application": "marked", "model": "raising:1", "context": MARKUP, "at_ms": now_ms, "detector": MARKUP,
        "losses": 900, "after": 50, "loss_before": 0.1, "loss_after": 0.6, "revision": 1,
        "topic": of.feedback, "partition": 0, "offset": 0,
    }  # fmt: skip
    client.send_json(of.control, drift, key=b"drift/marked/raising:1")
    trial = f"model shadow flaky:1 --application picks --share 0.2 --by '{MARKUP}' --why '{MARKUP}'"
    Shell(deployment.folder, deployment.environ)(trial)

    def is_answer(record: Record) -> bool:
        return bool(record.content["query_id"] == MARKUP)

    with client.reading(of.predictions) as predictions, client.reading(of.dead_letters) as letters:
        answers = predictions.until("the answer", lambda found: any(map(is_answer, found)))
        letters.until("the dead letter", lambda found: any(one.value == MARKUP.encode() for one in found))
    partition = next(filter(is_answer, answers)).partition
    told = {"query_id": MARKUP, "context": MARKUP, "label": MARKUP}
    client.send_json(of.feedback, told, key=MARKUP.encode(), partition=partition)
