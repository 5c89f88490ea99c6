"""What each rival of the same work does with its records, framework apart: it needs only mappings that are kept for it.

A query: decode it, answer a repeat from what was decided, draw a model by Exp3, look up the output of its row, call
each model once for all rows that are unknown, and give the default where the deadline has passed. A feedback: add the
loss of its decision, divided by the propensity, to the sum of the model, once.

What is left out for all of them: feedback that comes before its decision is dropped, as is that of a default.
"""

import hashlib
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
from models import digits, largest

MODELS: Mapping[str, Callable[[Any], Any]] = {"digits:1": digits, "largest:1": largest}
ETA, EXPLORATION = 0.01, 0.05
"""As in `configs/same-work.toml`."""
HORIZON_S = 3600.0
OBJECTIVE_MS = 500
DEFAULT_OUTPUT = -1


class State(Protocol):
    """What a framework keeps: bytes by a text."""

    def get(self, key: str, /) -> bytes | None: ...

    def __setitem__(self, key: str, value: bytes, /) -> None: ...


class TwoGenerations:
    """A mapping in memory that keeps an entry for one to two horizons, for frameworks whose state has no expiry."""

    def __init__(self) -> None:
        self._young: dict[str, bytes] = {}
        self._old: dict[str, bytes] = {}
        self._since_s = time.time()

    def get(self, key: str) -> bytes | None:
        """The value, if it is still kept."""
        return self._young.get(key) or self._old.get(key)

    def __setitem__(self, key: str, value: bytes) -> None:
        self._young[key] = value

    def forget(self, now_s: float) -> None:
        """Drop what is older than a horizon; to be called now and then."""
        if now_s - self._since_s > HORIZON_S:
            self._young, self._old, self._since_s = {}, self._young, now_s

    def copy(self) -> "TwoGenerations":
        """A copy for a snapshot."""
        copy = TwoGenerations()
        copy.__dict__.update(vars(self), _young=dict(self._young))
        return copy


class Received(NamedTuple):
    """A query's record."""

    value: bytes
    timestamp_ms: int


class Query(msgspec.Struct):
    """One row for an application."""

    query_id: str
    application: str
    input: list[float]


class Feedback(msgspec.Struct):
    """What was true about a query."""

    query_id: str
    label: int


class ModelAnswer(msgspec.Struct):
    """The model that was asked."""

    model: str
    version: str
    propensity: float
    output: int
    latency_ms: float
    cached: bool


class Prediction(msgspec.Struct, omit_defaults=True):
    """The answer and the record of the decision, with the names of the fields of ours."""

    query_id: str
    application: str
    output: int
    queried_at_ms: int
    predicted_at_ms: int
    latency_ms: int
    policy: str = ""
    default: bool = False
    reason: str | None = None
    models: list[ModelAnswer] = []


_queries, _feedback = msgspec.json.Decoder(Query), msgspec.json.Decoder(Feedback)
_predictions, _totals = msgspec.json.Decoder(Prediction), msgspec.json.Decoder(dict[str, float])
_encode = msgspec.json.Encoder().encode


def propensities(losses: Mapping[str, float]) -> dict[str, float]:
    """Probability of each model under Exp3.

    Args:
        losses: Sum of loss / propensity by model.

    Source: Auer, Cesa-Bianchi, Freund and Schapire, "The nonstochastic multiarmed bandit problem", SIAM J. Comput.
    32, 2002.
    """
    least = min(losses.get(model, 0.0) for model in MODELS)
    weights = {model: math.exp(-ETA * (losses.get(model, 0.0) - least)) for model in MODELS}
    total = sum(weights.values())
    return {model: (1 - EXPLORATION) * weight / total + EXPLORATION / len(MODELS) for model, weight in weights.items()}


@dataclass(slots=True)
class Decision:
    """A query that is being answered.

    Attributes:
        query: The query.
        queried_at_ms: Timestamp of its record.
        began_ms: When it was decided.
        model: Who was drawn; empty past the deadline.
        propensity: With which probability.
        row: Its key in the cache.
        output: What the model said; None: not known yet.
        cached: Whether that came from the cache.
    """

    query: Query
    queried_at_ms: int
    began_ms: int
    model: str = ""
    propensity: float = 0.0
    row: str = ""
    output: int | None = None
    cached: bool = False


class Work:
    """The work on some partitions.

    Args:
        decisions: Predictions by query id.
        scored: Ids of queries whose feedback is in the sums.
        losses: Sums of loss / propensity by model, by application.
        outputs: Outputs by model version and row.
        objectives_ms: From the record's timestamp to the deadline, by application; `OBJECTIVE_MS` for others.
        clock_ms: The time.
    """

    def __init__(
        self,
        decisions: State,
        scored: State,
        losses: State,
        outputs: State,
        objectives_ms: Mapping[str, int] | None = None,
        clock_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._decisions, self._scored, self._losses, self._outputs = decisions, scored, losses, outputs
        self._objectives_ms, self._clock_ms = objectives_ms or {}, clock_ms
        self._random = random.Random()

    def answer(self, records: Sequence[Received]) -> list[tuple[str, bytes]]:
        """Query id and prediction of each query, by at most one call of each model."""
        now_ms = self._clock_ms()
        asked: list[str] = []
        answers: dict[str, bytes] = {}
        fresh: dict[str, Decision] = {}
        for value, timestamp_ms in records:
            query = _queries.decode(value)
            asked.append(query.query_id)
            if query.query_id in fresh or query.query_id in answers:
                continue
            if (recorded := self._recorded(query.query_id, now_ms)) is None:
                fresh[query.query_id] = Decision(query, timestamp_ms, now_ms)
            else:
                answers[query.query_id] = recorded
        in_time = [each for each in fresh.values() if not self._is_late(each, now_ms)]
        self._choose(in_time)
        self._ask(in_time)
        now_ms = self._clock_ms()
        for query_id, decision in fresh.items():
            answers[query_id] = self._decisions[query_id] = self._conclude(decision, now_ms)
        return [(query_id, answers[query_id]) for query_id in asked]

    def learn(self, values: Iterable[bytes]) -> None:
        """Have each feedback move the sums of its application, once for each decision."""
        for value in values:
            feedback = _feedback.decode(value)
            recorded = self._decisions.get(feedback.query_id)
            if recorded is None or self._scored.get(feedback.query_id) is not None:
                continue
            decision = _predictions.decode(recorded)
            losses = self._sums(decision.application)
            for each in decision.models:
                model = f"{each.model}:{each.version}"
                losses[model] = losses.get(model, 0.0) + (each.output != feedback.label) / each.propensity
            self._losses[decision.application] = _encode(losses)
            self._scored[feedback.query_id] = b"1"

    def _recorded(self, query_id: str, now_ms: int) -> bytes | None:
        recorded = self._decisions.get(query_id)
        if recorded is None or now_ms - _predictions.decode(recorded).predicted_at_ms > HORIZON_S * 1000:
            return None
        return recorded

    def _is_late(self, decision: Decision, now_ms: int) -> bool:
        objective_ms = self._objectives_ms.get(decision.query.application, OBJECTIVE_MS)
        return now_ms - decision.queried_at_ms > objective_ms

    def _sums(self, application: str) -> dict[str, float]:
        return _totals.decode(self._losses.get(application) or b"{}")

    def _choose(self, decisions: list[Decision]) -> None:
        by_application = {
            application: propensities(self._sums(application))
            for application in {each.query.application for each in decisions}
        }
        for each in decisions:
            probabilities = by_application[each.query.application]
            each.model = self._random.choices([*probabilities], [*probabilities.values()])[0]
            each.propensity = probabilities[each.model]

    def _ask(self, decisions: list[Decision]) -> None:
        if not decisions:
            return
        rows = np.array([each.query.input for each in decisions], np.float32)
        unknown: dict[str, dict[str, int]] = {model: {} for model in MODELS}
        for index, each in enumerate(decisions):
            each.row = f"{each.model}/{hashlib.blake2b(rows[index].tobytes(), digest_size=16).hexdigest()}"
            if (known := self._outputs.get(each.row)) is not None:
                each.output, each.cached = int(known), True
            else:
                unknown[each.model][each.row] = index
        found: dict[str, int] = {}
        for model, indices in unknown.items():
            if indices:
                found |= zip(indices, MODELS[model](rows[[*indices.values()]]).tolist(), strict=True)
        for row, output in found.items():
            self._outputs[row] = b"%d" % output
        for each in decisions:
            each.output = found[each.row] if each.output is None else each.output

    def _conclude(self, decision: Decision, now_ms: int) -> bytes:
        query, latency_ms = decision.query, now_ms - decision.queried_at_ms
        prediction = Prediction(
            query.query_id, query.application, DEFAULT_OUTPUT, decision.queried_at_ms, now_ms, latency_ms
        )
        if decision.output is None or self._is_late(decision, now_ms):
            prediction.default, prediction.reason = True, "late" if decision.model else "arrived_late"
            return _encode(prediction)
        name, _, version = decision.model.partition(":")
        took_ms = float(now_ms - decision.began_ms)
        prediction.output, prediction.policy = decision.output, "exp3"
        prediction.models = [ModelAnswer(name, version, decision.propensity, decision.output, took_ms, decision.cached)]
        return _encode(prediction)
