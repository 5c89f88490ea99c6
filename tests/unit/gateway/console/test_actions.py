import asyncio
import threading

import pytest
from unit.gateway.rig import NO_KAFKA, refused, refuses

from clipper_agents.control.errors import RefusedChange
from clipper_gateway.callers import Caller, Shares
from clipper_gateway.console import actions
from clipper_gateway.console.actions import MOST_LETTERS, ActionForm, ActionPreview, Actions, Doer
from clipper_gateway.errors import Refusal

ADA = Caller("ada", None, frozenset({"read", "operate"}))
READER = Caller("grace", None, frozenset({"read"}))
DIGITS_ONLY = Caller("alan", frozenset({"digits"}), frozenset({"read", "operate"}))
PROMOTE = {"application": ["digits"], "model": ["svm:2"], "seen": ["4"], "number": ["one"]}


class Recorder:
    """Actions that note who asks for them, and in which thread."""

    def __init__(self):
        self.done, self.threads, self.error, self.away = [], set(), None, None
        self.entered, self.leave = threading.Event(), threading.Event()
        self.leave.set()
        doers = dict.fromkeys(("promote", "resend"), Doer(self._preview, self._perform))
        self.actions = Actions(*NO_KAFKA, self._check, Shares(), doers)

    def _check(self):
        if self.away is not None:
            raise self.away

    async def _preview(self, _, form):
        await self._waited()
        return ActionPreview(title=f"{form.application}", lines=["~"], seen=4)

    async def _perform(self, _, form, signature):
        self.threads.add(threading.current_thread())
        self.done.append((signature.by, signature.why))
        self.entered.set()
        await self._waited()
        if self.error is not None:
            raise self.error
        return [f"{form.model}"]

    async def _waited(self):
        while not self.leave.is_set():
            await asyncio.sleep(0.001)

    def perform(self, caller=ADA, action="promote", **fields):
        return self.actions.perform(action, caller, ActionForm.of({**PROMOTE, **fields}))


@pytest.fixture
def recorder():
    return Recorder()


async def test_who_may_use_some_applications_names_one_of_them(recorder):
    """An action on none was refused with the names of all."""
    for application in ("", "sums"):
        await refused(recorder.perform(DIGITS_ONLY, application=[application]), 403)
    assert recorder.done == []


# --- forms ------------------------------------------------------------------------------------------------------------
def test_a_form_is_read_with_empty_fields_left_out():
    fields = {"application": [" digits "], "to_revision": [""], "position": ["41", "7", "7"], "x": ["y"]}
    form = ActionForm.of(fields)
    assert (form.application, form.to_revision) == ("digits", None)
    assert (form.position, form.model) == ([41, 7, 7], "")
    for seen, revision in (("", 0), ("12", 12)):
        assert ActionForm.of({"application": ["a"], "seen": [seen]}).seen_revision == {"a": revision}


@pytest.mark.parametrize(
    ("field", "texts"),
    [
        ("application", ["<img src=x>"]),
        ("application", ["a/../b"]),
        ("model", ["svm"]),
        ("to_revision", ["0"]),
        ("to_revision", ["two"]),
        ("position", ["-1"]),
        ("position", ["1"] * (MOST_LETTERS + 1)),
        ("seen", ["-1"]),
        ("why", ["x" * 501]),
    ],
)
def test_a_form_with_a_wrong_field_is_refused(field, texts):
    with refuses(400, field):
        ActionForm.of({field: texts})


# --- who --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("action", "caller", "fields", "status", "said"),
    [
        ("promote", READER, PROMOTE, 403, "no right 'operate'"),
        ("promote", DIGITS_ONLY, {"application": ["letters"]}, 403, "may not use application"),
        ("resend", DIGITS_ONLY, {"position": ["1"]}, 403, "of all applications"),
        ("delete", ADA, {}, 404, "use one of promote"),
        ("promote", ADA, PROMOTE, 503, "no broker answers"),
    ],
)
async def test_who_may_not_act_is_refused_and_nothing_is_done(recorder, action, caller, fields, status, said):
    recorder.away = Refusal(503, "no broker answers: try again")
    for work in (recorder.actions.preview, recorder.actions.perform):
        await refused(work(action, caller, ActionForm.of(fields)), status, said)
    assert recorder.done == []


# --- once -------------------------------------------------------------------------------------------------------------
async def test_a_confirmation_that_is_sent_twice_is_done_once_by_name_in_another_thread(recorder):
    recorder.leave.clear()
    clicks = [asyncio.create_task(recorder.perform(why=["better"])) for _ in range(2)]
    assert await asyncio.to_thread(recorder.entered.wait, 10)
    recorder.leave.set()
    assert await asyncio.gather(*clicks) == [["svm:2"]] * 2
    assert await recorder.perform(why=["better"]) == ["svm:2"]
    assert recorder.done == [("ada via console", "better")]
    assert threading.current_thread() not in recorder.threads


async def test_what_nobody_waits_for_any_more_is_brought_to_its_end(recorder):
    recorder.leave.clear()
    click = asyncio.create_task(recorder.perform())
    assert await asyncio.to_thread(recorder.entered.wait, 10)
    click.cancel()
    with pytest.raises(asyncio.CancelledError):
        await click
    recorder.leave.set()
    assert await recorder.perform() == ["svm:2"]
    assert len(recorder.done) == 1


@pytest.mark.parametrize(
    ("caller", "changed"), [(ADA, {"number": ["two"]}), (ADA, {"model": ["svm:3"]}), (DIGITS_ONLY, {})]
)
async def test_another_confirmation_is_done_for_itself(recorder, caller, changed):
    await recorder.perform()
    await recorder.perform(caller, **changed)
    assert len(recorder.done) == 2


async def test_what_failed_may_be_tried_again_with_the_same_confirmation(recorder):
    recorder.error = RefusedChange("it is not on trial")
    for _ in range(2):
        with pytest.raises(RefusedChange):
            await recorder.perform()
    assert len(recorder.done) == 2


async def test_an_action_that_takes_too_long_is_given_up(recorder, monkeypatch):
    monkeypatch.setattr(actions, "WITHIN_S", 0.05)
    recorder.leave.clear()
    await refused(recorder.actions.preview("promote", ADA, ActionForm.of(PROMOTE)), 503, "has not answered")
