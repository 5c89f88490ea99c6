import msgspec
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from builders.router_deployment import Deployment
from integration.stand_in_router import answer_everything, stand_in_router

from clipper_loadgen import Dataset, LoadPlan, LoadReport, run_load
from clipper_stream.errors import InvalidSetting
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.query_ids import partition_of

EYE = Dataset(np.eye(10), labels=list(range(10)))


def digit_of(query):
    return query.input.index(1)


@pytest.fixture
def load(kafka, catalogue):
    async def run(answering=answer_everything, **settings):
        plan = LoadPlan("digits", **({"dataset": EYE, "drain_s": 0.5} | settings))
        async with stand_in_router(kafka, catalogue, answering) as router:
            return await run_load(plan, kafka, catalogue), router

    return run


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_every_query_of_an_open_loop_is_answered_counted_and_told_about_once(kafka, catalogue, load, encoding):
    report, router = await load(
        rate_per_s=600.0, duration_s=0.5, arrivals="constant", encoding=encoding, contexts=5,
        feedback_delay_s=0.05,
    )  # fmt: skip
    assert (report.queries, report.answered, report.missing, report.duplicates) == (300, 300, 0, 0)
    assert all(value is not None and value > 0 for value in report.latency.values())
    assert LoadReport(**msgspec.json.decode(msgspec.json.encode(report))) == report
    labels = {query.query_id: digit_of(query) for query in router.queries}
    assert len(labels) == 300
    assert sum(labels.values()) == 30 * sum(range(10))
    places = {key: partition for partition, key in router.records}
    assert places.keys() == {b"c0", b"c1", b"c2", b"c3", b"c4"}
    for query, (partition, key) in zip(router.queries, router.records, strict=True):
        assert (partition, key) == (partition_of(query.query_id), query.context.encode())
        assert partition == places[key], "a context keeps its own"
    async with AIOKafkaProducer(**kafka.aiokafka()) as producer:
        for key, partition in places.items():
            assert (await producer.send_and_wait(catalogue.outputs, b"", key)).partition == partition
    records = await Deployment(kafka, catalogue, None).read(catalogue.feedback)
    told = [(one.partition, codec.feedback.decode(one.value, list(one.headers.items()))) for one in records]
    assert report.feedback_sent == len(told) == 300
    assert {feedback.query_id: feedback.label for _, feedback in told} == labels
    assert all(partition == partition_of(feedback.query_id) for partition, feedback in told)


async def test_a_deployment_that_does_not_exist_is_an_error_with_its_topic(kafka):
    plan = LoadPlan("digits", duration_s=1.0, dataset=EYE)
    with pytest.raises(InvalidSetting, match=r"there is no topic 'nowhere.predictions'"):
        await run_load(plan, kafka, Catalogue(prefix="nowhere"))


async def test_a_record_that_the_broker_refuses_is_reported_and_its_query_is_missing(load):
    rows = Dataset(rows=["x" * 2_000_000])
    report, _ = await load(rate_per_s=10.0, duration_s=0.3, arrivals="constant", dataset=rows)
    assert (report.queries, report.missing, report.send_failures) == (3, 3, 3)
    assert "TooLarge" in report.send_failure
