"""A Kafka as providers offer it: a proxy before a broker, which lowers versions of requests and refuses settings."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from aiokafka.errors import InvalidConfigurationError, PolicyViolationError
from aiokafka.protocol.admin import CreateTopicsRequest_v3, CreateTopicsResponse_v3
from aiokafka.protocol.api import RequestHeader_v1

API_VERSIONS, CREATE_TOPICS, PRODUCE = 18, 19, 0
INIT_PRODUCER_ID, ADD_PARTITIONS_TO_TXN, END_TXN = 22, 24, 26
_HEADER, _API = struct.Struct(">hhi"), struct.Struct(">hhh")


@dataclass(frozen=True)
class Provider:
    """What a provider does otherwise than Apache Kafka.

    Attributes:
        versions: The newest version of a request; -1: it is not known.
        refused: Settings of topics, each with the error by which it is refused.
        says: Rows of `kafka check` that are not fine.
    """

    versions: dict[int, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    says: dict[str, str] = field(default_factory=dict)


TOPICS = ("queries", "predictions", "audits", "feedback", "feedback-acks", "outputs", "selection", "control", "hosts",
          "comparisons", "dead-letters", "router-selection-changelog")  # fmt: skip
WITHOUT_COMPRESSION = {f"topic PREFIX.{name}": "degraded" for name in TOPICS}
PROVIDERS = {
    "Apache Kafka": Provider(),
    "Confluent Cloud": Provider(refused={"compression.type": PolicyViolationError.errno}, says=WITHOUT_COMPRESSION),
    "Redpanda before 25.3": Provider({3: 8}, says={"Metadata": "degraded"}),
    "a provider that refuses settings as invalid": Provider(
        refused={"compression.type": InvalidConfigurationError.errno}, says=WITHOUT_COMPRESSION
    ),
    "Event Hubs, Standard": Provider(
        {INIT_PRODUCER_ID: -1, ADD_PARTITIONS_TO_TXN: -1, END_TXN: -1},
        says=dict.fromkeys(("InitProducerId", "AddPartitionsToTxn", "EndTxn"), "missing"),
    ),
    "old brokers": Provider({0: 6, 1: 10, 3: 5}, says=dict.fromkeys(("Produce", "Fetch", "Metadata"), "degraded")),
}
"""Sources: docs.confluent.io/cloud/current/topics/manage.html; redpanda pull request 26968; the table of Kafka features
in Event Hubs' documentation."""


class ProviderProxy:
    """Passes requests on to a broker, as a provider would answer them; the broker advertises this proxy's address."""

    def __init__(self, provider: Provider, host: str, port: int) -> None:
        self._provider, self._broker = provider, (host, port)

    @asynccontextmanager
    async def running(self, host: str, port: int) -> AsyncIterator[None]:
        async with await asyncio.start_server(self._serve, host, port):
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_broker, to_broker = await asyncio.open_connection(*self._broker)
        asked: dict[int, tuple[int, int]] = {}

        async def requests() -> None:
            while True:
                frame = await _frame(reader)
                api, version, number = _HEADER.unpack_from(frame)
                answer = self._refusal(frame) if (api, version) == (CREATE_TOPICS, 3) else None
                if answer is not None:
                    writer.write(_framed(number, answer))
                    continue
                asked[number] = api, version
                to_broker.write(struct.pack(">i", len(frame)) + frame)

        async def answers() -> None:
            while True:
                frame = await _frame(from_broker)
                (number,) = struct.unpack_from(">i", frame)
                api, _ = asked.pop(number)
                writer.write(_framed(number, self._lowered(frame[4:]) if api == API_VERSIONS else frame[4:]))

        ways = [asyncio.ensure_future(way()) for way in (requests, answers)]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for one in await asyncio.gather(*ways, return_exceptions=True):
                assert isinstance(one, (asyncio.IncompleteReadError, OSError, asyncio.CancelledError)), one
            to_broker.close()
            writer.close()

    def _lowered(self, answer: bytes) -> bytes:
        code, count = struct.unpack_from(">hi", answer)
        found = [_API.unpack_from(answer, 6 + _API.size * number) for number in range(count)]
        versions = [(key, least, min(most, self._provider.versions.get(key, most))) for key, least, most in found]
        kept = [one for one in versions if one[2] >= 0]
        rest = answer[6 + _API.size * count :]
        return struct.pack(">hi", code, len(kept)) + b"".join(_API.pack(*one) for one in kept) + rest

    def _refusal(self, frame: bytes) -> bytes | None:
        """The answer to a request for topics of which one has a setting that is refused; None: the broker answers."""
        data = BytesIO(frame)
        RequestHeader_v1.SCHEMA.decode(data)
        topics, *_ = CreateTopicsRequest_v3.SCHEMA.decode(data)
        errors: list[tuple[Any, ...]] = []
        for name, _, _, _, config in topics:
            codes = [self._provider.refused[key] for key, _ in config if key in self._provider.refused]
            errors.append((name, codes[0] if codes else 0, "this setting cannot be changed" if codes else None))
        if not any(code for _, code, _ in errors):
            return None
        fine = [
            (name, PolicyViolationError.errno, "not created beside a refused one")
            for name, code, _ in errors
            if not code
        ]
        return CreateTopicsResponse_v3(0, [one for one in errors if one[1]] + fine).encode()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


def _framed(number: int, answer: bytes) -> bytes:
    return struct.pack(">ii", 4 + len(answer), number) + answer
