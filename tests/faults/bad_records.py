"""Thousands of records that are wrong in one way or another, the same ones for the same seed."""

import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import bad_input
import msgspec
from hypothesis import strategies as st

from clipper_topics.catalogue import Catalogue

Headers = list[tuple[str, bytes | None]]
BIG_BYTES = 900_000
"""Near the limit of the topics that applications write."""

CONTROL_KEYS = (b"", b"nonsense", b"application/", b"model/\xff:1", b"application/zzz", b"model/zzz:1", b"model/q:2")
"""Of nothing that the good traffic needs: a manifest that can be read counts. None is null."""
ODD = (
    None, [], [[]], {}, "3", "nan", True, -1, 10**400, 2**63, 1e308, [[1, 2], [3]], [[[[1]]]], {"base64": "=?"},
)  # fmt: skip
MSGPACK = msgspec.msgpack.encode
BIG: tuple[Callable[[], object], ...] = (
    lambda: MSGPACK({"application": "picks", "inputs": [[1]] * (BIG_BYTES // 2 - 20)}),
    lambda: MSGPACK({"application": "picks", "inputs": [None] * (BIG_BYTES - 100)}),
    lambda: MSGPACK({"application": "\x7f" * BIG_BYTES, "input": [1]}),
    lambda: MSGPACK({"query_id": "\x7f" * (BIG_BYTES // 2), "application": "\0" * 99, "loss": 1}),
    lambda: {"application": "blends", "inputs": [[number] for number in range(100_000)]},
    lambda: {"application": "blends", "inputs": [[number] for number in range(9_000)]},
    lambda: {"application": "blends", "inputs": [[1], [1, 2]] * 4_000},
    lambda: {"application": "picks", "input": ["x" * BIG_BYTES, 1, 1]},
    lambda: {"application": "slow", "inputs": ["x" * 400_000, *[1] * 9_000]},
    lambda: {"application": "picks", "input": [10**400] * 2_000},
    lambda: {"application": "picks", "input": [[[[[1] * 20] * 20] * 20] * 20]},
    lambda: {"application": "picks", "models": ["m"] * 200_000, "input": [1]},
    lambda: msgspec.json.encode({"application": "picks", "context": "\x7f" * BIG_BYTES, "input": [1]}),
    lambda: b"[" * BIG_BYTES,
    lambda: b"\x91" * BIG_BYTES,
    lambda: None,
)
"""Bytes, or what is JSON; None is random."""


class BadRecords:
    """Generates them for the topics of a catalogue and a requests topic.

    Of each strategy so many examples are `pooled`: Hypothesis takes some milliseconds for one, a mutation microseconds.
    """

    def __init__(self, catalogue: Catalogue, requests: str, seed: int, pooled: int) -> None:
        self._rng, self._partitions, self._now_ms = random.Random(seed), catalogue.partitions, round(time.time() * 1000)
        self._topics = {name: getattr(catalogue, name) for name in ("queries", "feedback", "control", "outputs")}
        self._topics["requests"] = requests
        written = bad_input.written
        kinds = {
            "queries": written(bad_input.queries),
            "feedback": written(bad_input.feedback),
            "control": written(bad_input.manifests),
            "outputs": bad_input.frames,
            "requests": st.one_of(bad_input.frames, bad_input.request_frames),
        }
        self._anything = bad_input.pool(bad_input.contents, pooled)
        self._near = {name: bad_input.pool(strategy, pooled) for name, strategy in kinds.items()}
        self._headers = bad_input.pool(bad_input.headers, pooled)

    def generate(self, count: int, big_ratio: float) -> Iterator[dict[str, Any]]:
        """So many records, half of them queries; `big_ratio` of them are near their topic's limit."""
        rng = self._rng
        for _ in range(count):
            name = rng.choices([*self._topics], [50, 25, 3, 11, 11])[0]
            value = self._value(name, big_ratio)
            headers: Headers = list(rng.choice(self._headers)) if rng.random() < 0.3 else []
            if value and value[:1] >= b"\x80" and rng.random() < 0.8:
                headers = [("content-type", b"application/msgpack"), *headers]
            keys = [None, b"", b"ada", b"\xff\0", rng.randbytes(9)]
            key = rng.choice(CONTROL_KEYS if name == "control" else keys)
            partition = rng.randrange(self._partitions) if name not in ("control", "requests") else 0
            at_ms = rng.choice((0, 0, 0, 1, self._now_ms - 10**9, self._now_ms + 50 * 60_000))
            topic = self._topics[name]
            yield dict(topic=topic, value=value, key=key, partition=partition, headers=headers, timestamp=at_ms)

    def _value(self, name: str, big_ratio: float) -> bytes | None:
        rng = self._rng
        chance = rng.random()
        if chance < big_ratio:
            return self._big(name)
        if chance < 0.5 and name in ("queries", "feedback"):
            return json.dumps(self._about_the_real(name)).encode()
        value = rng.choice(self._near[name] if chance < 0.8 else self._anything)
        return self._mutated(value) if value and rng.random() < 0.5 else value

    def _about_the_real(self, name: str) -> dict[str, object]:
        """Queries of real applications, and feedback about real queries, with one thing wrong or odd."""
        rng = self._rng
        ids = [f"order {rng.randrange(300)}", f"{rng.randrange(9)}-{rng.randrange(400)}", "x" * 300, "a\0b"]
        query_id, odd = rng.choice(ids), rng.choice(ODD)
        if name == "feedback":
            return {"query_id": query_id, rng.choice(["label", "loss", "reward"]): odd} | rng.choice(
                [{}, {"context": "ada"}, {"application": "picks"}, {"application": "nobody"}, {"loss": 0.5}]
            )
        rows = [{"input": odd}, {"inputs": [[1, 2, 3], odd]}, {"inputs": odd}, {"input": [1, 2, rng.random()]}]
        more = [
            {}, {"query_id": query_id}, {"models": ["nobody:7"]}, {"models": ["sum:1"] * 50}, {"context": "c" * 257},
            {"deadline_ms": 10**400}, {"deadline_ms": -5},
        ]  # fmt: skip
        return {
            "application": rng.choice(["picks", "blends", "slow", "unknown"]),
            **rng.choice(rows),
            **rng.choice(more),
        }

    def _mutated(self, value: bytes) -> bytes:
        rng, changed = self._rng, bytearray(value)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(changed) + 1)
            changed[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        return bytes(changed[: rng.randrange(len(changed) + 1)]) if rng.random() < 0.2 else bytes(changed)

    def _big(self, name: str) -> bytes:
        rng = self._rng
        if name in ("outputs", "requests"):
            return rng.choice([b"\x01", b"\x02"]) + rng.randbytes(4 * BIG_BYTES)
        made = rng.choice(BIG)()
        if made is None:
            return rng.randbytes(BIG_BYTES)
        return made if isinstance(made, bytes) else json.dumps(made).encode()
