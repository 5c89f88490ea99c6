"""Decisions of one partition, in log order, as arrays: gathered list by list, kept until all is known about them.

Rules of this file:
- A chunk holds what the predictions say, and nothing of what came later.
- Who was asked stands in arrays of its own, an entry a model, since most decisions ask one of many.
- Numbers of words (models, contexts, values) are the chunk's own, so that a chunk can be put away and forgotten.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clipper_agents.replay.values import Codes, Values, packed, unpacked
from clipper_agents.replay.wire import UNSAID, LeanAnswer, LeanMissing, LeanPrediction, Record
from clipper_stream.evaluation.log.columns import stacked

DEFAULT, LOW_CONFIDENCE, SEVERAL_ROWS, AUDITED = 1, 2, 4, 8
"""Bits of `flags`."""
NO_ANSWER = -1
"""For an output: the model was asked, and did not answer."""
_ROWS: dict[str, Any] = {
    "offset": np.int64,
    "query_offset": np.int64,
    "at_ms": np.int64,
    "logged_ms": np.int64,
    "context": np.int32,
    "policy": np.int32,
    "revision": np.int32,
    "served_propensity": np.float64,
    "confidence": np.float64,
    "flags": np.uint8,
    "answer": np.int32,
}
_ENTRIES: dict[str, Any] = {
    "row": np.int32,
    "model": np.int32,
    "propensity": np.float64,
    "latency_ms": np.float64,
    "output": np.int32,
    "served": np.bool_,
}
Arrays = dict[str, NDArray[Any]]


@dataclass(slots=True, kw_only=True)
class Chunk:
    """Decisions `first_row`, `first_row + 1`, ... of a partition.

    Attributes:
        first_row: Number of the first one among the decisions of the partition that are read.
        rows: By name, an array with an element a decision.
        features: Of the queries, NaN where one has fewer of them or none, (n, F).
        entries: By name, an array with an element a model that a decision asked; `row` counts from 0 in the chunk.
        models: References by their numbers.
        contexts: Contexts by their numbers.
        policies: Names of policies by their numbers.
        values: Outputs and labels by their numbers.
    """

    first_row: int
    rows: Arrays
    features: NDArray[np.float64]
    entries: Arrays
    models: Codes[str]
    contexts: Codes[str | None]
    policies: Codes[str]
    values: Values

    def __len__(self) -> int:
        return len(self.rows["offset"])

    @property
    def last_ms(self) -> int:
        """Timestamp of the newest record, milliseconds since the epoch."""
        return int(self.rows["logged_ms"].max())

    def save(self, path: Path) -> None:
        """Write the chunk to an uncompressed file."""
        values = list(map(packed, self.values.known))
        words = (self.first_row, list(self.models), list(self.contexts), list(self.policies), values)
        encoded = np.frombuffer(msgspec.msgpack.encode(words), np.uint8)
        arrays: dict[str, Any] = {f"entry_{name}": array for name, array in self.entries.items()}
        arrays |= self.rows
        with path.open("wb") as file:
            np.savez(file, words=encoded, features=self.features, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Chunk":
        """Read the chunk that `save` wrote."""
        with np.load(path) as found:
            first_row, models, contexts, policies, values = msgspec.msgpack.decode(found["words"].tobytes())
            rows = {name: found[name] for name in _ROWS}
            entries = {name: found[f"entry_{name}"] for name in _ENTRIES}
            features = found["features"]
        return cls(
            first_row=first_row,
            rows=rows,
            features=features,
            entries=entries,
            models=Codes.of(models),
            contexts=Codes.of(contexts),
            policies=Codes.of(policies),
            values=Values(map(unpacked, values)),
        )


class ChunkBuilder:
    """Builds one chunk from lists of decisions.

    Args:
        first_row: Number of the chunk's first decision.
    """

    def __init__(self, first_row: int) -> None:
        self._first_row, self._count = first_row, 0
        self._rows: list[Arrays] = []
        self._entries: list[Arrays] = []
        self._features: list[NDArray[np.float64]] = []
        self._models, self._contexts, self._policies = Codes[str](), Codes[str | None](), Codes[str]()
        self._refs: dict[tuple[str, str], int] = {}
        self._values = Values()

    def __len__(self) -> int:
        return self._count

    def add(self, records: Sequence[Record], found: Sequence[LeanPrediction]) -> None:
        """Append decisions, in log order."""
        contexts, policies = self._contexts, self._policies
        answers = [one.output if one.outputs is UNSAID else one.outputs for one in found]
        columns: dict[str, list[Any]] = {
            "offset": [record.offset for record in records],
            "query_offset": [one.query_offset for one in found],
            "at_ms": [one.predicted_at_ms for one in found],
            "logged_ms": [record.timestamp for record in records],
            "context": [contexts[one.context] for one in found],
            "policy": [-1 if one.policy is None else policies[one.policy.name] for one in found],
            "revision": [-1 if one.policy is None else one.policy.version for one in found],
            "served_propensity": [one.served_propensity for one in found],
            "confidence": [one.confidence for one in found],
            "flags": [
                one.default
                | (one.reason == "low_confidence") << 1
                | (one.outputs is not UNSAID) << 2
                | one.audited << 3
                for one in found
            ],
            "answer": self._codes(answers),
        }
        self._rows.append({name: np.array(columns[name], kind) for name, kind in _ROWS.items()})
        self._features.append(_padded([one.features for one in found]))
        self._entries.append(self._answers(found))
        if any(one.missing for one in found):
            self._entries.append(self._missing(found))
        self._count += len(found)

    def close(self) -> Chunk:
        """Return the finished chunk."""
        return Chunk(
            first_row=self._first_row,
            rows={name: np.concatenate([piece[name] for piece in self._rows]) for name in _ROWS},
            features=stacked(self._features),
            entries={name: np.concatenate([piece[name] for piece in self._entries]) for name in _ENTRIES},
            models=self._models,
            contexts=self._contexts,
            policies=self._policies,
            values=self._values,
        )

    def _answers(self, found: Sequence[LeanPrediction]) -> Arrays:
        asked = [one for each in found for one in each.models]
        row = np.repeat(np.arange(self._count, self._count + len(found)), [len(one.models) for one in found])
        outputs = self._codes([one.output if one.outputs is UNSAID else one.outputs for one in asked])
        latency_ms = [one.latency_ms for one in asked]
        return self._entries_of(asked, row=row, output=outputs, latency_ms=latency_ms)

    def _missing(self, found: Sequence[LeanPrediction]) -> Arrays:
        """Return the models that did not answer; placed after the answers, they win where a model is in both."""
        asked = [one for each in found for one in each.missing]
        row = np.repeat(np.arange(self._count, self._count + len(found)), [len(one.missing) for one in found])
        return self._entries_of(asked, row=row, output=[NO_ANSWER] * len(asked), latency_ms=[0.0] * len(asked))

    def _entries_of(self, asked: Sequence[LeanAnswer | LeanMissing], **columns: Any) -> Arrays:
        ref = self._ref
        columns["model"] = [ref(one.model, one.version) for one in asked]
        columns["propensity"] = [one.propensity for one in asked]
        columns["served"] = [one.served for one in asked]
        return {name: np.array(columns[name], kind) for name, kind in _ENTRIES.items()}

    def _codes(self, outputs: list[Any]) -> list[int]:
        """Return the number of each output; an output that the record leaves out counts as null."""
        if UNSAID in outputs:
            outputs = [None if one is UNSAID else one for one in outputs]
        return self._values.codes(outputs)

    def _ref(self, name: str, version: str) -> int:
        found = self._refs.get((name, version))
        if found is None:
            found = self._refs[name, version] = self._models[f"{name}:{version}"]
        return found


def _padded(features: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Rows as wide as the widest, NaN where one is shorter."""
    width = max(map(len, features))
    found = np.full((len(features), width), np.nan)
    if width:
        for row, own in zip(found, features, strict=True):
            row[: len(own)] = own
    return found
