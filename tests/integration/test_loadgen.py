"""The load generator against a real Kafka and a stand-in router."""

import asyncio

import msgspec
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from builders.stand_in_router import answer_by_default, answer_everything, stand_in_router

from clipper_loadgen import Dataset, LoadPlan, LoadReport, run_load
from clipper_stream.client.kafka import assigned_consumer
from clipper_stream.errors import InvalidSetting, UnknownName
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.manifests import ApplicationManifest, InputSpec
from clipper_topics.query_ids import partition_of

pytestmark = pytest.mark.integration

EYE = Dataset(np.eye(10), labels=list(range(10)))


async def loaded(plan, kafka, catalogue, answering=answer_everything):
    async with stand_in_router(kafka, catalogue, answering) as router:
        return await run_load(plan, kafka, catalogue), router


async def feedback_of(kafka, catalogue):
    """Every feedback there is: (partition, record key, feedback)."""
    consumer = await assigned_consumer(kafka, catalogue.feedback, at_end=False, isolation_level="read_committed")
    try:
        total = sum((await consumer.end_offsets(consumer.assignment())).values())
        found = []
        while len(found) < total:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [(r.partition, r.key, codec.feedback.decode(r.value, r.headers)) for r in records]
        return found
    finally:
        await consumer.stop()


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_every_query_of_an_open_loop_is_answered_and_counted_once(kafka, catalogue, encoding):
    plan = LoadPlan("digits", rate_per_s=300.0, duration_s=1.0, arrivals="constant", dataset=EYE, encoding=encoding)
    report, router = await loaded(plan, kafka, catalogue)
    assert (report.queries, report.answered, report.missing, report.duplicates) == (300, 300, 0, 0)
    assert len({query.query_id for query in router.queries}) == 300
    assert all(value is not None and value > 0 for value in report.latency.values())
    assert sum(query.input.index(1) for query in router.queries) == 30 * sum(range(10))


async def test_a_query_goes_to_the_partition_of_its_id_and_a_context_keeps_its_own(kafka, catalogue):
    plan = LoadPlan("digits", rate_per_s=300.0, duration_s=1.0, dataset=EYE, contexts=5, zipf_exponent=1.0)
    _, router = await loaded(plan, kafka, catalogue)
    seen = {}
    for query, (partition, key) in zip(router.queries, router.records, strict=True):
        assert partition == partition_of(query.query_id)
        assert key == query.context.encode()
        assert seen.setdefault(key, partition) == partition
    assert set(seen) == {b"c0", b"c1", b"c2", b"c3", b"c4"}


async def test_our_partitions_are_those_that_a_client_would_choose_for_the_key(kafka, catalogue):
    async def client_choice(keys):
        async with AIOKafkaProducer(**kafka.aiokafka()) as producer:
            return {key: (await producer.send_and_wait(catalogue.outputs, b"", key)).partition for key in keys}

    plan = LoadPlan("digits", rate_per_s=300.0, duration_s=0.3, dataset=EYE)
    _, router = await loaded(plan, kafka, catalogue)
    ours = {key: partition for partition, key in router.records}
    assert await client_choice(ours) == ours


async def test_saturation_answers_every_query_and_measures_a_rate(kafka, catalogue):
    plan = LoadPlan("digits", mode="saturation", queries=3_000, outstanding=200, dataset=EYE)
    report, router = await loaded(plan, kafka, catalogue)
    assert (report.queries, report.answered, len(router.queries)) == (3_000, 3_000, 3_000)
    assert report.throughput_per_s is not None
    assert report.throughput_per_s > 0


async def test_saturation_never_has_more_queries_outstanding_than_it_may(kafka, catalogue):
    plan = LoadPlan("digits", mode="saturation", queries=500, outstanding=50, dataset=EYE, drain_s=1.0)
    report, router = await loaded(plan, kafka, catalogue, answering=lambda query: [])
    assert len(router.queries) == 50
    assert (report.queries, report.answered, report.missing) == (50, 0, 50)


async def test_lost_queries_are_late_for_ever_and_second_answers_are_duplicates(kafka, catalogue):
    def answering(query):
        digit = query.input.index(1)
        return [] if digit == 0 else answer_everything(query) * (2 if digit == 1 else 1)

    plan = LoadPlan("digits", rate_per_s=200.0, duration_s=1.0, arrivals="constant", dataset=EYE, drain_s=1.0)
    report, _ = await loaded(plan, kafka, catalogue, answering)
    assert (report.queries, report.missing, report.duplicates) == (200, 20, 20)
    assert report.latency["p50_ms"] is not None
    assert report.latency["p99_ms"] is None


async def test_default_outputs_are_counted_by_reason(kafka, catalogue):
    def answering(query):
        reason = {0: "late", 1: "errors"}.get(query.input.index(1))
        return [answer_by_default(query, reason)] if reason else answer_everything(query)

    plan = LoadPlan("digits", rate_per_s=200.0, duration_s=1.0, arrivals="constant", dataset=EYE)
    report, _ = await loaded(plan, kafka, catalogue, answering)
    assert report.defaults == {"late": 20, "errors": 20}
    assert report.default_ratio == 0.2


async def test_a_bounded_run_stops_sending_while_so_many_queries_have_no_answer(kafka, catalogue):
    plan = LoadPlan(
        "digits", mode="bounded", rate_per_s=500.0, duration_s=1.0, outstanding=50, dataset=EYE, drain_s=1.0,
    )  # fmt: skip
    report, router = await loaded(plan, kafka, catalogue, answering=lambda query: [])
    assert (len(router.queries), report.queries, report.answered) == (50, 50, 0)


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_feedback_has_the_label_of_its_query_and_goes_to_its_partition(kafka, catalogue, encoding):
    plan = LoadPlan(
        "digits",
        rate_per_s=200.0,
        duration_s=1.0,
        arrivals="constant",
        dataset=EYE,
        feedback_delay_s=0.05,
        feedback_distribution="exponential",
        encoding=encoding,
    )
    report, router = await loaded(plan, kafka, catalogue)
    labels = {query.query_id: query.input.index(1) for query in router.queries}
    found = await feedback_of(kafka, catalogue)
    assert report.feedback_sent == len(found) == 200
    assert {feedback.query_id: feedback.label for _, _, feedback in found} == labels
    assert all(partition == partition_of(feedback.query_id) for partition, _, feedback in found)


async def test_without_labels_a_feedback_is_a_loss(kafka, catalogue):
    rows = Dataset(np.eye(10))
    plan = LoadPlan("digits", rate_per_s=400.0, duration_s=1.0, arrivals="constant", dataset=rows, feedback_delay_s=0.0,
        label_noise_ratio=0.25)  # fmt: skip
    await loaded(plan, kafka, catalogue)
    losses = [feedback.loss for _, _, feedback in await feedback_of(kafka, catalogue)]
    assert (len(losses), set(losses)) == (400, {0.0, 1.0})
    assert abs(sum(losses) - 100) < 4 * np.sqrt(400 * 0.25 * 0.75)


def test_label_noise_flips_its_share_of_the_labels(kafka, catalogue):
    plan = LoadPlan(
        "digits", rate_per_s=400.0, duration_s=1.0, arrivals="constant", dataset=EYE, feedback_delay_s=0.0,
        label_noise_ratio=0.25, seed=3,
    )  # fmt: skip
    _, router = asyncio.run(loaded(plan, kafka, catalogue))
    truth = {query.query_id: query.input.index(1) for query in router.queries}
    wrong = sum(truth[fb.query_id] != fb.label for _, _, fb in asyncio.run(feedback_of(kafka, catalogue)))
    assert abs(wrong - 100) < 4 * np.sqrt(400 * 0.25 * 0.75)


async def test_without_inputs_rows_follow_the_manifest_on_the_control_topic(kafka, catalogue):
    async def register(manifest):
        async with AIOKafkaProducer(**kafka.aiokafka()) as producer:
            key = f"application/{manifest.name}".encode()
            await producer.send_and_wait(catalogue.control, codec.applications.encode(manifest), key)

    for shape in ([4], [2, 3]):  # the newest manifest counts
        spec = InputSpec(dtype="int32", shape=shape)
        await register(ApplicationManifest(name="grid", models=["m:1"], input=spec))
    plan = LoadPlan("grid", rate_per_s=100.0, duration_s=0.5)
    report, router = await loaded(plan, kafka, catalogue)
    assert report.missing == 0
    assert all(np.array(query.input).shape == (2, 3) for query in router.queries)
    assert report.distinct_inputs == report.queries


async def test_an_application_that_is_not_registered_is_named_with_those_that_are(kafka, catalogue: Catalogue):
    with pytest.raises(UnknownName, match=r"no application 'nobody' is registered; registered: none"):
        await run_load(LoadPlan("nobody", duration_s=1.0), kafka, catalogue)


async def test_a_deployment_that_does_not_exist_is_an_error_with_its_topic(kafka):
    plan = LoadPlan("digits", duration_s=1.0, dataset=EYE)
    with pytest.raises(InvalidSetting, match=r"there is no topic 'nowhere.predictions'"):
        await run_load(plan, kafka, Catalogue(prefix="nowhere"))


async def test_a_record_that_the_broker_refuses_is_reported_and_its_query_is_missing(kafka, catalogue):
    rows = Dataset(rows=["x" * 2_000_000])
    plan = LoadPlan("digits", rate_per_s=10.0, duration_s=0.3, arrivals="constant", dataset=rows, drain_s=0.5)
    report = await run_load(plan, kafka, catalogue)
    assert (report.queries, report.missing, report.send_failures) == (3, 3, 3)
    assert "TooLarge" in report.send_failure


async def test_warm_up_queries_are_sent_and_not_counted(kafka, catalogue):
    plan = LoadPlan("digits", rate_per_s=200.0, duration_s=1.0, warmup_s=0.5, arrivals="constant", dataset=EYE)
    report, router = await loaded(plan, kafka, catalogue)
    assert (report.queries, len(router.queries)) == (200, 300)


async def test_a_report_goes_through_json(kafka, catalogue):
    plan = LoadPlan("digits", rate_per_s=100.0, duration_s=0.3, arrivals="constant", dataset=EYE)
    report, _ = await loaded(plan, kafka, catalogue)
    decoded = msgspec.json.decode(msgspec.json.encode(report))
    assert LoadReport(**decoded) == report
