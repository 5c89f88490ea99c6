"""What an operator does from the console: previewed first, then written as the commands write it.

preview, of the control topic as it is --> diff, what was seen --> perform: compare-and-set --> what was written
   ^---------------------- something else is there by then: StaleRevision ----------|

Rules of this file:
- The plans are those of `clipper_agents.control` and `clipper_agents.dead_letters`: no rule of a change stands here.
- A change is signed `NAME via console`: nobody's key passes for a user of the command line, or for the rollout.
- What was confirmed once is done once, however often it is sent: each confirmation has a number.
- Kafka is asked in threads with event loops of their own. A registry of megabytes delays no prediction, and what was
  begun is brought to its end when nobody waits for it any more.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from clipper_agents.control import changes
from clipper_agents.control.change_records import Signature
from clipper_agents.control.manifest_text import change_text, plan_lines, rollback_lines, written_lines
from clipper_agents.control.plan import Plan
from clipper_agents.control.rollback import plan_rollback, roll_back
from clipper_agents.control.state import ControlState, Manifests, read_control
from clipper_agents.control.writer import change_control
from clipper_agents.dead_letters.replay import ReplayOutcome, check_letters, replay_letters
from clipper_agents.observability.logging import event
from clipper_agents.settings.error_messages import explained
from clipper_gateway.callers import Caller, Share, Shares, bounded
from clipper_gateway.errors import Refusal
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ModelRef, Name

logger = logging.getLogger(__name__)

WITHIN_S = 60.0
"""For an action or its preview; each question to Kafka has a bound of its own."""
MOST_LETTERS = 500
REMEMBERED = 1_000
"""Confirmations whose results are kept for who sends one again."""
Revision = Annotated[int, Meta(ge=1, le=2**53)]
Position = Annotated[int, Meta(ge=0, le=2**62)]
T = TypeVar("T")


class ActionForm(msgspec.Struct, frozen=True, kw_only=True):
    """What a form asks for; that of a confirmation has what was `seen`, its `number`, and `why` too."""

    application: Name = ""
    model: ModelRef = ""
    to_revision: Revision | None = None
    position: Annotated[list[Position], Meta(max_length=MOST_LETTERS)] = []
    seen: Annotated[int, Meta(ge=0, le=2**53)] = 0
    number: Annotated[str, Meta(max_length=100)] = ""
    why: Annotated[str, Meta(max_length=500)] = ""

    @classmethod
    def of(cls, fields: Mapping[str, Sequence[str]]) -> "ActionForm":
        """Return the fields of a form, of which empty ones count as missing."""
        given = {name: [*texts] if name == "position" else texts[-1].strip() for name, texts in fields.items()}
        given = {name: value for name, value in given.items() if value}
        try:
            return msgspec.convert(given, cls, strict=False)
        except msgspec.ValidationError as error:
            raise Refusal(400, explained(str(error), given, cls)) from error

    @property
    def seen_revision(self) -> dict[str, int]:
        return {self.application: self.seen}


class ActionPreview(NamedTuple):
    """What an action would do: the difference as `apply --dry-run` prints it, and what it was decided on (`seen`).

    No line says that things are so already; notes are what else there is to know.
    """

    title: str
    lines: Sequence[str]
    notes: Sequence[str] = ()
    seen: int = 0


Target: TypeAlias = tuple[KafkaConnection, Catalogue]


class Doer(NamedTuple):
    """How an action is previewed, and how it is done, which returns a line for each thing that was written."""

    preview: Callable[[Target, ActionForm], Awaitable[ActionPreview]]
    perform: Callable[[Target, ActionForm, Signature], Awaitable[list[str]]]


def _model_change(rule: Callable[[Manifests, str, str], Plan], title: str) -> Doer:
    async def preview(target: Target, form: ActionForm) -> ActionPreview:
        state, name = await read_control(*target), form.application
        lines = [*plan_lines(state, rule(state.manifests, name, form.model))]
        return ActionPreview(title.format(form.model, name), lines, seen=state.current(name))

    async def perform(target: Target, form: ActionForm, signature: Signature) -> list[str]:
        def decide(state: ControlState) -> Plan:
            return rule(state.manifests, form.application, form.model)

        return written_lines(await change_control(*target, decide, signature, seen=form.seen_revision))

    return Doer(preview, perform)


async def _preview_rollback(target: Target, form: ActionForm) -> ActionPreview:
    state, name = await read_control(*target), form.application
    plan, undone = plan_rollback(state.manifests, state.history(name), name, form.to_revision)
    lines = [*(f"undone: {change_text(each)}" for each in undone), *plan_lines(state, plan)] if plan else []
    title = f"Roll {name} back{f' to revision {form.to_revision}' if form.to_revision else ''}"
    is_kept = bool(undone) and undone[-1].rows is not None
    note = f"The selection state {'is set back too' if is_kept else 'stays: none was kept'}."
    return ActionPreview(title, lines, [note], state.current(name))


async def _roll_back(target: Target, form: ActionForm, signature: Signature) -> list[str]:
    return rollback_lines(
        await roll_back(*target, form.application, form.to_revision, signature, seen=form.seen_revision)
    )


async def _preview_resend(target: Target, form: ActionForm) -> ActionPreview:
    found = await check_letters(*target, sorted({*form.position}))
    sent = [f"+ {one.position}  {one.said.topic}" for one, reason in found if one.said and reason is None]
    left = [f"{one.position} is not sent: {reason}" for one, reason in found if reason is not None]
    return ActionPreview(f"Send {len(sent)} dead letter{'s' * (len(sent) != 1)} once more", sent, left)


async def _resend(target: Target, form: ActionForm, signature: Signature) -> list[str]:
    became: list[ReplayOutcome] = []
    try:
        async for outcomes in replay_letters(*target, sorted({*form.position})):
            became += outcomes
    finally:
        sent = ",".join(str(one.position) for one in became if one.sent_to)
        event(logger, "dead letters sent once more", by=signature.by, why=signature.why, positions=sent)
    return [f"{one.position}: {one.text}" for one in became]


DOERS = {
    "promote": _model_change(changes.promote, "Promote {} at {}"),
    "abort": _model_change(changes.abort, "Abort the trial of {} at {}"),
    "retire": _model_change(changes.retire, "Retire {} from {}"),
    "rollback": Doer(_preview_rollback, _roll_back),
    "resend": Doer(_preview_resend, _resend),
}


class Actions:
    """The actions on one deployment."""

    def __init__(
        self,
        kafka: KafkaConnection,
        catalogue: Catalogue,
        check: Callable[[], None],
        shares: Shares,
        doers: Mapping[str, Doer] = MappingProxyType(DOERS),
    ) -> None:
        self._target, self._check, self._doers = (kafka, catalogue), check, doers
        self._shares = shares
        self._confirmed: dict[tuple[str, str, bytes], asyncio.Task[list[str]]] = {}

    async def preview(self, action: str, caller: Caller, form: ActionForm) -> ActionPreview:
        doer = self._doer(action, caller, form)
        return await self._apart(self._shares.readers, caller, lambda: doer.preview(self._target, form))

    async def perform(self, action: str, caller: Caller, form: ActionForm) -> list[str]:
        """Do it, unless something else is there than was seen, and return what was written.

        Errors as of `preview`; StaleRevision: something else is there, and nothing was done.
        """
        doer, key = self._doer(action, caller, form), (caller.name, action, msgspec.json.encode(form))
        under_way = self._confirmed.get(key) if form.number else None
        if under_way is None or (under_way.done() and (under_way.cancelled() or under_way.exception())):
            signature = Signature(by=f"{caller.name} via console", why=form.why)
            work = self._apart(self._shares.actions, caller, lambda: doer.perform(self._target, form, signature))
            under_way = bounded(self._confirmed, REMEMBERED)[key] = asyncio.create_task(work)
            event(logger, "confirmed on the console", action=action, by=signature.by, application=form.application)
        return await asyncio.shield(under_way)

    def _doer(self, action: str, caller: Caller, form: ActionForm) -> Doer:
        if (doer := self._doers.get(action)) is None:
            raise Refusal(404, f"there is no such action: use one of {', '.join(self._doers)}")
        caller.require("operate")
        if caller.applications is not None:
            if action == "resend":
                raise Refusal(403, f"dead letters are of all applications, and {caller.name} may not use all of them")
            caller.require("operate", form.application)
        self._check()
        return doer

    async def _apart(self, share: Share, caller: Caller, work: Callable[[], Awaitable[T]]) -> T:
        async def in_time() -> T:
            async with asyncio.timeout(WITHIN_S):
                return await work()

        try:
            async with share.turn(caller.holder):
                return await asyncio.to_thread(lambda: asyncio.run(in_time()))
        except TimeoutError as error:
            raise Refusal(503, f"Kafka has not answered within {WITHIN_S:.0f} s") from error
