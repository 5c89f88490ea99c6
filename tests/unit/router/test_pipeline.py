"""The router is told of outputs and woken at deadlines, what it asks for is done, and what it defers is read again."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from builders.kafka import Tasks, record
from builders.query_router import application
from faust.types import TP
from unit.router.rig import CATALOGUE, query, settle

from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.indexed_log import QueryLogs
from clipper_agents.router.pipeline import MEMORY_CHUNKS, QueryPipeline, QueryStores
from clipper_stream.query import Effects, Request
from clipper_topics.codec import FailedRow, OutputFrame, encode_frame


# --- what is asked for, and deadlines ---------------------------------------------------------------------------------
class EffectsRig:
    """A router with one deadline, and notes of what is carried where."""

    def __init__(self):
        self.expired, self.failure = 0, None
        self.outputs, self.requests, self.here, self.forgotten, self.deferred = [], [], [], [], []
        self.metrics, self.tasks = RouterMetrics(), Tasks()
        sender = SimpleNamespace(put=self.requests.append, forget=self.forgotten.extend)
        caches = {0: SimpleNamespace(put_many=self.outputs.extend)}
        log = SimpleNamespace(connect=lambda written: None)
        stores = QueryStores(None, None, caches, QueryLogs(log, log))
        self.pipeline = QueryPipeline(self, stores, self.tasks, "queries", self.metrics)
        here = SimpleNamespace(models={"here:1"}, put=self.here.append)
        self.pipeline.connect(sender, here, SimpleNamespace(put=self.deferred.extend))

    def carry_out(self, after_s, **effects):
        """Carry out effects that leave a query with a deadline after so many seconds."""
        deadline_s = None if after_s is None else time.time() + after_s
        self.pipeline.carry_out(Effects(**effects, next_deadline_s=deadline_s))

    def expire(self, now_s):
        self.expired += 1
        if self.failure:
            raise self.failure
        return Effects(forgotten=[7])


async def test_everything_that_is_asked_for_is_carried_out():
    around = EffectsRig()
    here, there = (Request(ref, 1, np.zeros((1, 1)), np.zeros(1)) for ref in ("here:1", "there:1"))
    around.carry_out(
        None, requests=[here, there], outputs={0: [(b"key", 7)]}, deferred=["d"], is_full=True,
        coalesced=3, lookups={"m:1": 4, "n:1": 2}, hits={"m:1": 1}, queries={"app": 2, None: 1},
    )  # fmt: skip
    assert (around.outputs, around.here, around.requests) == ([(b"key", 7)], [here], [there])
    assert (around.deferred, around.pipeline.room.is_set()) == (["d"], False)
    value = around.metrics.registry.get_sample_value
    assert [value(f"clipper_cache_{kind}_total", {"model": "m:1"}) for kind in ("lookups", "hits")] == [4, 1]
    assert [value(f"clipper_cache_{kind}_total", {"model": "n:1"}) for kind in ("lookups", "hits")] == [2, 0]
    assert [value("clipper_queries_total", {"application": name}) for name in ("app", "unknown")] == [2, 1]
    assert value("clipper_coalesced_total") == 3
    await settle(3600.0)
    assert around.expired == 0


@pytest.mark.parametrize("after_s", [(20.0,), (3600.0, 20.0), (20.0, 30.0)])
async def test_the_router_is_woken_once_at_its_earliest_deadline_unless_the_pipeline_is_stopped(after_s):
    around = EffectsRig()
    for deadline_s in after_s:
        around.carry_out(deadline_s)
    await settle(18.0)
    assert around.expired == 0
    await settle(3600.0)
    assert (around.expired, around.forgotten) == (1, [7])
    around.carry_out(20.0)
    around.pipeline.stop()
    await settle(30.0)
    assert around.expired == 1


async def test_a_defect_in_expiring_is_heard_of():
    around = EffectsRig()
    around.failure = ZeroDivisionError()
    around.carry_out(0.0)
    await settle()
    assert around.tasks.failures == [around.failure]


# --- outputs ---------------------------------------------------------------------------------------------------------
class Stream:
    """Gives one chunk of outputs, and notes what of it is acknowledged in its generation."""

    generation = 3

    def __init__(self, *values):
        self.records, self.acked = [record(n, value, None, CATALOGUE.outputs) for n, value in enumerate(values)], []

    async def chunks(self, most, held):
        yield [(TP(CATALOGUE.outputs, 0), self.records)]

    def ack(self, tp, offsets, generation):
        self.acked += offsets if (tp, generation) == (TP(CATALOGUE.outputs, 0), 3) else []


@pytest.fixture
async def rig(make_rig):
    return make_rig(application(refs=("a:1", "b:1")), application("one"))


async def serve(rig, *values):
    """Serve these outputs; the offsets that are acknowledged."""
    stream = Stream(*values)
    await rig.outputs.serve(stream)
    rig.pipeline.stop()  # the deadline is years past
    await settle()
    return stream.acked


def frame(number, router=b"mine", outputs=(5, 6), failed=()):
    return encode_frame(OutputFrame(router=router, frame=number, row0=0, outputs=list(outputs), failed=list(failed)))


async def test_outputs_answer_the_query_that_waits_and_those_of_others_do_not(rig):
    number = rig.ask(query("q", 1, 2, application="one"))["a:1"].frame
    assert await serve(rig, frame(number, b"another", [7, 8]), frame(number)) == [0, 1]
    (answer,) = rig.predictions()
    assert (answer.outputs, rig.answered) == ([5, 6], [(number, 2)])
    counts, sums = (rig.counts(f"clipper_stage_latency_seconds_{one}", "stage") for one in ("count", "sum"))
    assert sums["return"] == pytest.approx(rig.router.return_s * MEMORY_CHUNKS)
    assert (counts["return"], counts["combine"]) == (1, 1), "both frames came together"
    assert sums["return"] > 0


async def test_a_host_answers_no_request_to_another_model_whose_frame_it_guesses(rig):
    requests = rig.ask(query("q", 1, 2))
    seen = requests["a:1"].frame
    await serve(rig, *(frame(seen + step, outputs=[66, 66]) for step in range(-500, 501) if step))
    await serve(rig, frame(seen), frame(requests["b:1"].frame))
    (answer,) = rig.predictions()
    assert [(use.model, use.outputs) for use in answer.models] == [("a", [5, 6]), ("b", [5, 6])]


async def test_a_failed_row_is_missing_in_the_answer_and_says_why(rig):
    number = rig.ask(query("q", 1, 2, application="one"))["a:1"].frame
    await serve(rig, frame(number, failed=[FailedRow(row=1, reason="error", explanation="no such digit")]))
    ((missing,),) = [answer.models[0].missing_rows for answer in rig.predictions()]
    assert (missing.row, missing.explanation) == (1, "no such digit")


async def test_what_is_no_frame_is_a_dead_letter_and_acked(rig):
    assert await serve(rig, b"junk") == [0]
    assert rig.counts("clipper_dead_letters_total", "topic") == {
        CATALOGUE.outputs: len(rig.log(CATALOGUE.dead_letters))
    }
    assert rig.counts("clipper_dead_letters_total", "reason") == {"undecodable": 1}


async def test_the_rows_of_a_request_that_cannot_be_sent_fail_at_once(rig):
    request = rig.ask(query("q", 1, 2, application="one"))["a:1"]
    rig.pipeline.fail(request, "no broker takes it")
    rig.pipeline.stop()
    await settle()
    (answer,) = rig.predictions()
    assert (answer.outputs, answer.reason) == (["default", "default"], "errors")
    assert "no broker takes it" in answer.missing[0].explanation
