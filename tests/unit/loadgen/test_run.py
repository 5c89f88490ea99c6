import asyncio
import time
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from clipper_loadgen import Dataset, LoadPlan
from clipper_loadgen.run import ANSWER_STATUSES, DUPLICATES_S, AnswerStatus, LoadRun, decode_answer
from clipper_loadgen.script import write_script
from clipper_topics import codec
from clipper_topics.codec import JSON, MSGPACK, headers_of
from clipper_topics.prediction import ModelAnswer, PolicyRef, Prediction

ROWS = Dataset(np.eye(4), labels=[0, 1, 2, 3])


class PatientPipeline:
    """Outlets, consumer and observer of a run of 20 queries: answers one when so many are open, or all are sent."""

    answers, failures, first_failure = ANSWER_STATUSES, 1, "full"

    def __init__(self, most_open, let_through=0):
        self.most_open, self.let_through = most_open, let_through
        self.ids, self.most_seen, self.answered_count, self.told = [], 0, 0, {}

    async def send(self, records):
        self.ids += [codec.queries.decode(value).query_id for _, _, value, _ in records]
        self.most_seen = max(self.most_seen, len(self.ids) - self.answered_count)
        assert len(self.ids) <= self.let_through

    async def getmany(self, timeout_ms):
        number = self.answered_count
        while len(self.ids) < min(number + self.most_open, 20) or number == 20:
            await asyncio.sleep(0.001)
        self.answered_count += 1
        reason = {0: "late", 1: None}.get(number, "")
        answer = Prediction(
            query_id=self.ids[number], application="digits", default=reason != "", reason=reason or None
        )
        foreign = Prediction(query_id="0-somebody-else", application="digits")
        answers = [answer, foreign, *([answer] if number == 2 else [])]
        values = [b"nonsense", *map(codec.predictions.encode, answers)]
        return {0: [SimpleNamespace(value=value, headers=()) for value in values]}

    def releasing(self, count):
        self.let_through = max(self.let_through, count)

    def answered(self, query, answer):
        self.told[query] = answer


@pytest.mark.parametrize("observed", [True, False])
@pytest.mark.parametrize(("mode", "most_open"), [("rate", 20), ("bounded", 5), ("saturation", 5)])
async def test_a_run_lets_through_what_is_due_and_in_a_closed_loop_no_more_than_may_be_open(mode, most_open, observed):
    is_rated = mode != "saturation"
    amount = {"rate_per_s": 1e3, "duration_s": 0.019, "warmup_s": 0.001} if is_rated else {"queries": 20}
    plan = LoadPlan("digits", mode=mode, outstanding=5, arrivals="constant", dataset=ROWS, **amount)
    script = write_script(plan, partitions=2, run="0123abcd")
    pipeline = PatientPipeline(most_open, 0 if observed else 20)
    run = LoadRun(plan, script, pipeline.send, time.perf_counter, pipeline if observed else None)
    assert np.isnan(run.ledger.due_s).all() == (mode != "rate")  # latencies count from when a query was sent
    await run.run(pipeline, pipeline.send, None)
    assert pipeline.most_seen == most_open
    assert [answer.query_id for _, answer in sorted(pipeline.told.items())] == (pipeline.ids if observed else [])
    assert run.ledger.reasons == {0: "late", 1: "unstated"}
    report = run.report(SimpleNamespace(failures=1, first_failure=None), pipeline)
    counted = 20 - is_rated  # without the one of the warm-up
    assert (report.mode, report.queries, report.answered, report.duplicates) == (mode, counted, counted, 1)
    assert (report.send_failures, report.send_failure, report.distinct_inputs) == (2, "full", 4)


async def test_a_run_whose_answers_do_not_come_ends_after_the_drain_and_is_reported_as_it_is():
    plan = LoadPlan("digits", mode="saturation", queries=20, outstanding=5, dataset=ROWS, drain_s=0.3)
    began_s = time.perf_counter()
    pipeline = PatientPipeline(most_open=20, let_through=5)
    run = LoadRun(plan, write_script(plan, partitions=2, run="0123abcd"), pipeline.send, time.perf_counter)
    await run.run(pipeline, pipeline.send, None)
    assert time.perf_counter() - began_s > 0.3 + DUPLICATES_S
    report = run.report(pipeline, pipeline)
    assert (report.queries, report.answered, report.missing) == (5, 0, 5)


PREDICTION = Prediction(
    query_id="3-41",
    application="digits",
    default=True,
    reason="late",
    policy=PolicyRef(name="exp3"),
    models=[ModelAnswer(model="m", version="1", propensity=0.5, output=[1.0, 2.0])],
)


def test_a_prediction_is_decoded_as_far_as_it_is_counted_and_other_bytes_are_passed_over():
    for kind in (JSON, MSGPACK):
        found = decode_answer(codec.predictions.encode(PREDICTION, kind), headers_of(kind))
        assert found == AnswerStatus(query_id="3-41", default=True, reason="late")
    others = [None, b"", b"nonsense", b"[]", msgspec.json.encode({"application": "digits"})]
    assert [value for value in others if decode_answer(value, ()) is not None] == []
