"""Outputs for this process reach the queries that wait, those for others are left alone, and everything is acked."""

import pytest
from builders.kafka import record
from builders.query_router import application
from faust.types import TP
from unit.router.rig import CATALOGUE, query, settle

from clipper_agents.router.outputs import MEMORY_CHUNKS
from clipper_topics.frames import FailedRow, OutputFrame, encode_frame


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
    rig.effects.stop()  # the deadline is years past
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
    assert len(rig.log(CATALOGUE.dead_letters)) == 1
    assert rig.counts("clipper_dead_letters_total", "topic") == {CATALOGUE.outputs: 1}
    assert rig.counts("clipper_dead_letters_total", "reason") == {"undecodable": 1}


async def test_the_rows_of_a_request_that_cannot_be_sent_fail_at_once(rig):
    request = rig.ask(query("q", 1, 2, application="one"))["a:1"]
    rig.effects.fail(request, "no broker takes it")
    rig.effects.stop()
    await settle()
    (answer,) = rig.predictions()
    assert (answer.outputs, answer.reason) == (["default", "default"], "errors")
    assert "no broker takes it" in answer.missing[0].explanation
