"""Deployments with gateways, and what their tests ask them with: HTTP as it is on the wire, offsets, lines of logs."""

import asyncio
import json
import re
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import Consumer, TopicPartition
from e2e.programs import Program, environment_of, until

from clipper_agents.kafka.topics import delete_topics, existing_topics
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

CONFIGURATION = Path(__file__).with_name("gateway.toml")
FREE_PORTS = {"CLIPPER_GATEWAY_PORT": "0", "CLIPPER_GATEWAY_GRPC_PORT": "0"}
ANSWER_S = 60.0
MODELS = '''
import time
from pathlib import Path

CLOSED = Path(__file__).with_name("closed")


def letters(rows):
    return [f"{len(row)} letters" for row in rows]


def held(rows):
    while CLOSED.exists():
        time.sleep(0.01)
    return rows.sum(axis=1)
'''


@dataclass(frozen=True)
class Gateway:
    """A gateway that runs alone."""

    program: Program
    http: str
    grpc: str
    metrics: str

    @property
    def port(self) -> int:
        """Of HTTP."""
        return int(self.http.rpartition(":")[2])


@dataclass(frozen=True)
class Deployment:
    """A deployment that runs, with its gateway's URL when it has one."""

    up: Program
    url: str
    catalogue: Catalogue
    environ: Mapping[str, str]
    folder: Path

    @contextmanager
    def gateway(self, name: str, **settings: str) -> Iterator[Gateway]:
        """Start a further gateway; `settings` are variables of its environment."""
        environ = {**self.environ, **FREE_PORTS, **settings}
        with Program("gateway", "--instance", name, folder=self.folder / name, environ=environ) as program:
            fields = program.ready()
            gateway = Gateway(program, fields["http"], fields["grpc"], f"http://127.0.0.1:{fields['metrics']}/metrics")
            with client_of(gateway.http) as client:
                until("the gateway serves", lambda: client.get("/readyz").status_code == 200)
            yield gateway

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Have the application `held` answer nothing until the end of the block."""
        closed = self.folder / "closed"
        closed.touch()
        try:
            yield
        finally:
            closed.unlink()


@contextmanager
def deployed(
    kafka: KafkaConnection, folder: Path, config: Path = CONFIGURATION, **settings: str
) -> Iterator[Deployment]:
    """A deployment on topics of its own, which are deleted at the end; `settings` are variables of its environment."""
    catalogue = Catalogue(prefix=f"t{uuid.uuid4().hex[:6]}", partitions=2)
    environ = environment_of(kafka, catalogue, **FREE_PORTS, **settings)
    (folder / "gateway_models.py").write_text(MODELS)
    try:
        with Program("up", "--config", str(config), folder=folder, environ=environ) as up:
            yield Deployment(up, up.ready().get("gateway", ""), catalogue, environ, folder)
    finally:
        asyncio.run(_delete(kafka, catalogue.prefix))


async def _delete(kafka: KafkaConnection, prefix: str) -> None:
    await delete_topics(kafka, list(await existing_topics(kafka, prefix)))


def client_of(url: str, **headers: str) -> httpx.Client:
    """A client that knows no proxy."""
    return httpx.Client(base_url=url, headers=headers, timeout=ANSWER_S, trust_env=False)


def metric(url: str, series: str) -> float:
    """The value of a series of a process, 0 where there is none yet."""
    lines = httpx.get(url, trust_env=False, timeout=ANSWER_S).text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == series), 0.0)


def events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Server-sent events, by their fields; comments are left out."""
    event: dict[str, str] = {}
    for line in lines:
        name, _, text = line.partition(": ")
        if name:
            event[name] = text
        elif line == "" and event:
            yield event
            event = {}
