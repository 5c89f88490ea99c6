"""Actions before Kafka is asked: their forms, who may act, and what is done once."""

import asyncio
import threading

import pytest

from clipper_agents.control.errors import RefusedChange
from clipper_gateway.access import Caller
from clipper_gateway.console import actions
from clipper_gateway.console.actions import MOST_LETTERS, ActionForm, ActionPreview, Actions, Doer
from clipper_gateway.errors import Refusal
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

ADA = Caller("ada", None, frozenset({"read", "operate"}))
READER = Caller("grace", None, frozenset({"read"}))
DIGITS_ONLY = Caller("alan", frozenset({"digits"}), frozenset({"read", "operate"}))
PROMOTE = {"application": ["digits"], "model": ["svm:2"], "seen": ["4"], "number": ["one"]}


class Recorder:
    """An action that notes who asks for it, and in which thread."""

    def __init__(self, error=None):
        self.done, self.threads, self.error = [], set(), error
        self.entered, self.leave = threading.Event(), threading.Event()
        self.leave.set()

    async def preview(self, _, form):
        return ActionPreview(title=f"{form.application}", lines=["~"], seen="4")

    async def perform(self, _, form, signature):
        self.threads.add(threading.current_thread())
        self.done.append((signature.by, signature.why))
        self.entered.set()
        assert self.leave.wait(10)
        if self.error is not None:
            raise self.error
        return [f"{form.model}"]


def made(recorder, check=lambda: None, name="promote"):
    doers = {name: Doer(recorder.preview, recorder.perform)}
    return Actions(KafkaConnection("127.0.0.1:9"), Catalogue(), check, doers)


# --- forms ------------------------------------------------------------------------------------------------------------
def test_a_form_is_read_with_empty_fields_left_out():
    fields = {"application": [" digits "], "to_revision": [""], "undo": ["1"], "position": ["41", "7", "7"], "x": ["y"]}
    form = ActionForm.of(fields)
    assert (form.application, form.to_revision, form.undo) == ("digits", None, True)
    assert (form.position, form.model, form.again) == ([41, 7, 7], "", False)


@pytest.mark.parametrize(
    ("field", "texts"),
    [
        pytest.param("application", ["<img src=x>"], id="markup as a name"),
        pytest.param("application", ["a/../b"], id="a path as a name"),
        pytest.param("model", ["svm"], id="a model without a version"),
        pytest.param("to_revision", ["0"], id="revision 0"),
        pytest.param("revision", ["two"], id="a revision that is no number"),
        pytest.param("undo", ["perhaps"], id="neither yes nor no"),
        pytest.param("position", ["-1"], id="a position below 0"),
        pytest.param("position", ["1"] * (MOST_LETTERS + 1), id="too many positions"),
        pytest.param("seen", ["-1"], id="no revision that was seen"),
        pytest.param("why", ["x" * 501], id="a long reason"),
    ],
)
def test_a_form_with_a_wrong_field_is_refused(field, texts):
    with pytest.raises(Refusal, match=field) as refused:
        ActionForm.of({field: texts})
    assert refused.value.status == 400


def test_a_form_that_saw_nothing_saw_revision_0():
    assert ActionForm.of({"application": ["a"], "seen": [""]}).seen_revision == {"a": 0}
    assert ActionForm.of({"application": ["a"], "seen": ["12 r-0a"]}).seen_revision == {"a": 12}


# --- who --------------------------------------------------------------------------------------------------------------
REFUSED = {
    "no right": ("promote", READER, PROMOTE, 403, "no right 'operate'"),
    "another application": ("promote", DIGITS_ONLY, {"application": ["letters"]}, 403, "may not use application"),
    "letters of all": ("resend", DIGITS_ONLY, {"position": ["1"]}, 403, "of all applications"),
    "no such action": ("delete", ADA, {}, 404, "use one of promote"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_who_may_not_act_is_refused_and_nothing_is_done(case):
    action, caller, fields, status, said = REFUSED[case]
    recorder = Recorder()
    doers = made(recorder, name="resend" if action == "resend" else "promote")
    for work in (doers.preview, doers.perform):
        with pytest.raises(Refusal, match=said) as refused:
            await work(action, caller, ActionForm.of(fields))
        assert refused.value.status == status
    assert recorder.done == []


async def test_while_kafka_is_away_nothing_is_tried():
    def away():
        raise Refusal(503, "no broker answers: try again")

    recorder = Recorder()
    with pytest.raises(Refusal, match="no broker answers"):
        await made(recorder, away).perform("promote", ADA, ActionForm.of(PROMOTE))
    assert recorder.done == []


# --- once -------------------------------------------------------------------------------------------------------------
async def test_a_confirmation_that_is_sent_twice_is_done_once_by_name_in_another_thread():
    recorder = Recorder()
    doers, form = made(recorder), ActionForm.of({**PROMOTE, "why": ["better"]})
    recorder.leave.clear()
    clicks = [asyncio.create_task(doers.perform("promote", ADA, form)) for _ in range(2)]
    assert await asyncio.to_thread(recorder.entered.wait, 10)
    recorder.leave.set()
    assert await asyncio.gather(*clicks) == [["svm:2"]] * 2
    assert await doers.perform("promote", ADA, form) == ["svm:2"]
    assert recorder.done == [("ada via console", "better")]
    assert threading.current_thread() not in recorder.threads


async def test_what_nobody_waits_for_any_more_is_brought_to_its_end():
    recorder = Recorder()
    recorder.leave.clear()
    doers, form = made(recorder), ActionForm.of(PROMOTE)
    click = asyncio.create_task(doers.perform("promote", ADA, form))
    assert await asyncio.to_thread(recorder.entered.wait, 10)
    click.cancel()
    with pytest.raises(asyncio.CancelledError):
        await click
    recorder.leave.set()
    assert await doers.perform("promote", ADA, form) == ["svm:2"]
    assert len(recorder.done) == 1


@pytest.mark.parametrize(
    ("caller", "changed"),
    [
        pytest.param(ADA, {"number": ["two"]}, id="another number"),
        pytest.param(ADA, {"model": ["svm:3"]}, id="another model"),
        pytest.param(DIGITS_ONLY, {}, id="another caller"),
    ],
)
async def test_another_confirmation_is_done_for_itself(caller, changed):
    recorder = Recorder()
    doers = made(recorder)
    await doers.perform("promote", ADA, ActionForm.of(PROMOTE))
    await doers.perform("promote", caller, ActionForm.of({**PROMOTE, **changed}))
    assert len(recorder.done) == 2


async def test_what_failed_may_be_tried_again_with_the_same_confirmation():
    recorder = Recorder(RefusedChange("it is not on trial"))
    doers, form = made(recorder), ActionForm.of(PROMOTE)
    for _ in range(2):
        with pytest.raises(RefusedChange):
            await doers.perform("promote", ADA, form)
    assert len(recorder.done) == 2


async def test_an_action_that_takes_too_long_is_given_up(monkeypatch):
    async def never(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr(actions, "WITHIN_S", 0.05)
    doers = Actions(KafkaConnection("127.0.0.1:9"), Catalogue(), lambda: None, {"promote": Doer(never, never)})
    with pytest.raises(Refusal, match="has not answered") as refused:
        await doers.preview("promote", ADA, ActionForm.of(PROMOTE))
    assert refused.value.status == 503
