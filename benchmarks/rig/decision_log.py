"""A log of decisions as routers and applications write it: predictions, audits, feedback, by the project's codecs."""

import random
import time
from collections.abc import Iterator
from typing import Any

from rig.flood import TopicRecord

from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.catalogue import Catalogue
from clipper_topics.feedback import Feedback
from clipper_topics.prediction import ModelAnswer, PolicyRef, Prediction

APPLICATION = "digits"
MODELS = ("forest", "boosted", "linear")
ACCURACY = {"forest": 0.95, "boosted": 0.9, "linear": 0.8}
EPSILON, AUDIT_RATIO, LABELLED = 0.1, 0.02, 0.9
PARTITIONS = 4


def decisions(count: int, catalogue: Catalogue, *, delay: int, seed: int = 7) -> Iterator[TopicRecord]:
    """Records of so many decisions by `epsilon_greedy` over three models, each with its feedback in most cases.

    Args:
        count: Decisions; number i is in partition `i % PARTITIONS`.
        catalogue: The topics.
        delay: Decisions between a prediction and its feedback.
        seed: Of everything random.
    """
    rng = random.Random(seed)
    policy = PolicyRef(name="epsilon_greedy", version=3)
    at_ms = round(time.time() * 1000)
    waiting: dict[int, tuple[str, int]] = {}
    for number in range(count + delay):
        if number < count:
            query_id, label = (
                f"{number % PARTITIONS}-{rng.getrandbits(128):032x}",
                rng.randrange(10),
            )
            if rng.random() < LABELLED:
                waiting[number] = query_id, label
            yield from _decided(rng, number, query_id, label, policy, at_ms, catalogue)
        told = waiting.pop(number - delay, None)
        if told is not None:
            value = codec.feedback.encode(Feedback(query_id=told[0], application=APPLICATION, label=told[1]))
            yield TopicRecord(catalogue.feedback, (number - delay) % PARTITIONS, None, value, [])


def _decided(
    rng: random.Random, number: int, query_id: str, label: int, policy: PolicyRef, at_ms: int, catalogue: Catalogue
) -> Iterator[TopicRecord]:
    served = MODELS[0] if rng.random() < 1 - EPSILON else rng.choice(MODELS)
    chance = {model: EPSILON / 3 + (1 - EPSILON) * (model == MODELS[0]) for model in MODELS}
    asking = {model: AUDIT_RATIO + (1 - AUDIT_RATIO) * p for model, p in chance.items()}
    outputs = {m: label if rng.random() < ACCURACY[m] else rng.randrange(10) for m in MODELS}
    audited, partition, offset = rng.random() < AUDIT_RATIO, number % PARTITIONS, number // PARTITIONS
    common: dict[str, Any] = {"query_id": query_id, "application": APPLICATION, "query_offset": offset}
    prediction = Prediction(
        **common,
        output=outputs[served],
        confidence=1.0,
        policy=policy,
        served_propensity=chance[served],
        models=[_answer(rng, served, outputs, asking, served=True)],
        audited=audited,
        queried_at_ms=at_ms + number // 50,
        predicted_at_ms=at_ms + number // 50 + 9,
        latency_ms=round(rng.expovariate(0.1), 3),
    )
    yield TopicRecord(catalogue.predictions, partition, None, codec.predictions.encode(prediction), codec.JSON_HEADERS)
    if audited:
        besides = [_answer(rng, model, outputs, asking, served=False) for model in MODELS if model != served]
        audit = Audit(**common, models=besides, audited_at_ms=at_ms + number // 50 + 40)
        yield TopicRecord(catalogue.audits, partition, None, codec.audits.encode(audit), codec.JSON_HEADERS)


def _answer(
    rng: random.Random, model: str, outputs: dict[str, int], asking: dict[str, float], *, served: bool
) -> ModelAnswer:
    return ModelAnswer(
        model=model,
        version="1",
        propensity=asking[model],
        output=outputs[model],
        latency_ms=round(rng.expovariate(0.2), 3),
        served=served,
    )
