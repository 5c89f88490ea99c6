"""`benchmarks/rivals/bare_router.py` stands on the router's own objects; a change that breaks it shows here."""

import asyncio
import time
from collections import Counter

from aiokafka import TopicPartition
from builders.benchmarks import BENCHMARKS, benchmark_module
from builders.kafka import FakeProducer, record

from clipper_agents.settings import load_settings
from clipper_topics import codec
from clipper_topics.query import Query


def test_the_yardstick_asks_the_declared_model_and_answers(tmp_path):
    bare_router = benchmark_module("rivals.bare_router")
    settings = load_settings(BENCHMARKS / "configs/colocated.toml", {})
    producer, part = FakeProducer(), TopicPartition(settings.catalogue.queries, 0)
    value = codec.queries.encode(Query(application="digits-backlog", input=[0.0] * 64))
    asked = record(0, value, None, part.topic, timestamp=int(time.time() * 1000))

    async def answered():
        router = bare_router.BareRouter(settings, tmp_path, producer, max_in_flight=1)
        await router.declare()
        router.frontiers[0].admit([0])
        now_s = time.time()
        router.effects.run(router.router.receive(router.fresh.of({part: [asked]}, 0, now_s, [], Counter()), now_s))
        async with asyncio.timeout(30):
            while router.frontiers[0].committable is None:
                await asyncio.sleep(0.001)
        await router.colocated.stop()
        return router.registry.application("digits-backlog").refs

    assert asyncio.run(answered()) == ("digits:1",)
    ((_, value, headers),) = producer.logs[settings.catalogue.predictions, 0]
    prediction = codec.predictions.decode(value, headers)
    assert [one.model for one in prediction.models] == ["digits"]
