"""Outputs for this process reach the queries that wait, those for others are left alone, and everything is acked."""

import asyncio
from types import SimpleNamespace

from builders.kafka import FakeProducer, Tasks, record
from builders.query_router import NOW_S, application, make_router, query
from faust.types import TP

from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.effects import EffectRunner
from clipper_agents.router.outputs import MEMORY_CHUNKS, OutputAgent
from clipper_agents.streaming.dead_letters import DeadLetterSender
from clipper_agents.streaming.outbox import Outbox
from clipper_topics.catalogue import Catalogue
from clipper_topics.frames import FailedRow, OutputFrame, encode_frame

CATALOGUE = Catalogue(partitions=1)
TOPIC = TP(CATALOGUE.outputs, 0)


class Fixture:
    """An agent and a router that waits for the rows of one request."""

    generation = 3

    def __init__(self, *refs):
        self.producer, self.answers, self.answered, self.acked, self.dead = FakeProducer(), [], [], [], []
        self.counted = RouterMetrics()
        self.router = make_router(application("app", refs or ("a:1",)))
        self.effects = EffectRunner(self.router, self, SimpleNamespace(put=list), self, self.counted, None)
        self.tasks = Tasks()
        self.effects.connect(SimpleNamespace(put=list, forget=list), SimpleNamespace(take=None))
        self.agent = OutputAgent(
            b"mine", self.router, self.effects, self,
            DeadLetterSender(Outbox(self.producer), CATALOGUE.dead_letters, self.tasks), metrics=self,
        )  # fmt: skip
        self.requests = {one.ref: one for one in self.router.receive([query("q", 1, 2)], NOW_S).requests}
        self.request = self.requests["a:1"]

    def put(self, answers, audits, blocks):
        self.answers += answers

    def update_room(self):
        pass

    def count_answered(self, frame, rows):
        self.answered.append((frame, rows))

    def count_dead_letters(self, topic, kind, count):
        self.dead.append((topic, kind, count))

    def observe_return(self, took_s):
        self.took_s = took_s

    def ack(self, tp, offsets, generation):
        self.acked.append((tp, offsets, generation))

    async def chunks(self, most, held):
        yield [(TOPIC, [record(offset, value, None, CATALOGUE.outputs) for offset, value in enumerate(self.values)])]

    def serve(self, *values):
        self.values = values

        async def body():
            await self.agent.serve(self)
            self.effects.stop()
            while self.agent._dead_letters._is_sending:
                await asyncio.sleep(0)

        asyncio.run(body())


def frame(number, router=b"mine", outputs=(5, 6), failed=()):
    return encode_frame(OutputFrame(router=router, frame=number, row0=0, outputs=list(outputs), failed=list(failed)))


def test_outputs_answer_the_query_that_waits_and_those_of_others_do_not():
    fixture = Fixture()
    number = fixture.request.frame
    fixture.serve(frame(number, b"another"), frame(number))
    ((answer,),) = [fixture.answers]
    assert answer.outputs == [5, 6]
    assert fixture.answered == [(number, 2)]
    assert fixture.acked == [(TOPIC, [0, 1], 3)]
    assert fixture.took_s == fixture.router.return_s * MEMORY_CHUNKS > 0
    count = "clipper_stage_latency_seconds_count"
    assert fixture.counted.registry.get_sample_value(count, {"stage": "combine"}) == 1, "both frames came together"


def test_a_host_answers_no_request_to_another_model_whose_frame_it_guesses():
    fixture = Fixture("a:1", "b:1")
    seen = fixture.request.frame
    fixture.serve(*(frame(seen + step, outputs=[66, 66]) for step in range(-500, 501) if step))
    fixture.serve(frame(seen), frame(fixture.requests["b:1"].frame))
    ((answer,),) = [fixture.answers]
    assert [(use.ref, use.outputs) for use in answer.used] == [("a:1", [5, 6]), ("b:1", [5, 6])]


def test_a_failed_row_is_missing_in_the_answer_and_says_why():
    fixture = Fixture()
    fixture.serve(frame(fixture.request.frame, failed=[FailedRow(row=1, reason="error", explanation="no such digit")]))
    ((answer,),) = [fixture.answers]
    assert answer.used[0].failures[1].explanation == "no such digit"


def test_what_is_no_frame_is_a_dead_letter_and_acked():
    fixture = Fixture()
    fixture.serve(b"junk")
    assert len(fixture.producer.logs[CATALOGUE.dead_letters, 0]) == 1
    assert (fixture.dead, fixture.acked[-1]) == ([(CATALOGUE.outputs, "undecodable", 1)], (TOPIC, [0], 3))


async def test_the_rows_of_a_request_that_cannot_be_sent_fail_at_once():
    fixture = Fixture()
    fixture.effects.fail(fixture.request, "no broker takes it")
    fixture.effects.stop()
    ((answer,),) = [fixture.answers]
    assert (answer.outputs, answer.failure.reason) == (["default", "default"], "errors")
    assert "no broker takes it" in answer.missing[0].failure.explanation
