"""One call, whichever protocol it came by: what it may, whether it may wait, the answer, and repeats of it.

    call --> right --> application --> repeat? --> admitted? --> topics --> prediction
              403         404         join, 422       429        503 504

Rules of this file:
- A query without an id of the caller's own gets one that names its partition. A caller's own id is also the record's
  key, unless there is a context: so whoever has the id, and the context, finds the partition.
- A repeat under an own id gets the recorded answer. While the first call waits here, the repeat joins it; later, or at
  another gateway, the router answers with the recorded prediction, whose query offset says that it is a repeat. Then
  the first query is read back and compared. Another body waits until it is known whether the one before it was that.
- A call that began under an own id goes on when its client hangs up: the answer is asked for again.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from aiokafka.errors import KafkaError

from clipper_gateway.admission import CallAdmission
from clipper_gateway.callers import Caller, Shares
from clipper_gateway.errors import Refusal
from clipper_gateway.pipeline import Pipeline
from clipper_gateway.served_call import ServedCall
from clipper_stream.client.client_records import place_feedback
from clipper_stream.errors import shown
from clipper_topics.codec import MSGPACK
from clipper_topics.feedback import Feedback
from clipper_topics.manifests import ApplicationManifest
from clipper_topics.prediction import REFUSALS, Prediction
from clipper_topics.query import Query

LATE = frozenset({"late", "arrived_late", "overloaded"})
"""Reasons of defaults that more time, or fewer calls, would have spared."""
GRACE_S = 1.0
"""Beyond its deadline a query is answered by a default; so long that answer may take."""


class PredictBody(Query, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A question to the application that the path names; the parameters of the protocol have these names too."""

    application: str = ""
    """That of the path, which says enough."""
    strict: bool | None = None
    """Whether a default output is an error with the reason (503, or 400 and 404 of a query at fault) instead of an
    answer. Absent: only where the query is at fault."""


class Calls:
    """All calls of one gateway: how many are `waiting` for an answer, and the last output `answered` for a row."""

    def __init__(self, pipeline: Pipeline, shares: Shares, *, most_waiting: int, timeout_s: float) -> None:
        self.pipeline, self.applications, self.shares = pipeline, pipeline.deployed, shares
        self._admission, self._timeout_s = CallAdmission(most_waiting), timeout_s
        self._running: dict[tuple[str, str | None, str | None], tuple[Query, asyncio.Task[Prediction]]] = {}
        """Queries with an id of their callers', by what names them."""
        self.answered: dict[str, Any] = {}
        self.waiting = 0
        self.none_waits = asyncio.Event()
        self.none_waits.set()

    def admit(self, application: str, caller: Caller) -> None:
        """Raise a `Refusal` when a further call of the application would wait too long."""
        wait_s = self._admission.wait_s(application, caller.holder, time.monotonic())
        if wait_s is not None:
            text = f"too many calls of application {shown(application)} wait already: come again in {wait_s:.1f} s"
            raise Refusal(429, text, retry_after_s=wait_s, reason="overloaded")

    async def predict(self, call: ServedCall, query: PredictBody) -> Prediction:
        call.caller.require("predict", query.application)
        manifest = self.applications.manifest(query.application)
        self.shares.spend(call.caller, len(query.inputs or ()) - 1, least=0.0)
        strict, query.strict = query.strict, None  # which is not written
        ask = self._asked if query.query_id is None else self._repeatable
        prediction = await ask(call, query, manifest)
        if not prediction.default:
            several = prediction.outputs
            self.answered[query.application] = several[0] if isinstance(several, list) else prediction.output
        reason = prediction.reason
        if prediction.default and (reason in REFUSALS if strict is None else strict):
            status = 503 if reason not in REFUSALS else 400 if reason == "invalid_input" else 404
            text = prediction.explanation or "the default output was given"
            raise Refusal(status, text, query_id=prediction.query_id, reason=reason)
        return prediction

    async def give(self, call: ServedCall, feedback: Sequence[Feedback]) -> None:
        """Send feedback; returns when Kafka has it."""
        for each in feedback:
            self._check_feedback(call.caller, each)
        self.shares.spend(call.caller, len(feedback) - 1, least=0.0)
        self.pipeline.check()
        client, headers = self.pipeline.client, call.record_headers
        keyed = [(each, each.query_id.encode()) for each in feedback]
        if len(keyed) > 1:
            for each, key in keyed:
                place_feedback(each, key, client.partitions, MSGPACK)
        await asyncio.gather(*(client.give(each, key=key, headers=headers) for each, key in keyed))

    def _check_feedback(self, caller: Caller, feedback: Feedback) -> None:
        caller.require("feedback", feedback.application)
        if feedback.application is not None:
            self.applications.manifest(feedback.application)
        elif caller.applications is not None:
            raise Refusal(400, "the feedback names no application, and this key is for some of them: give application")

    # --- one query --------------------------------------------------------------------------------------------------
    async def _asked(
        self, call: ServedCall, query: Query, manifest: ApplicationManifest, *, repeated: bool = False
    ) -> Prediction:
        self.pipeline.check()
        self.admit(query.application, call.caller)
        is_late = None
        self._admission.begin(query.application, holder := call.caller.holder)
        self.waiting += 1
        self.none_waits.clear()
        key = (query.context or query.query_id or "").encode() if repeated else None
        wait_s = self._wait_s(call, query, manifest)
        try:
            asked = await self.pipeline.client.ask(query, timeout_s=wait_s, key=key, headers=call.record_headers)
            is_late = asked.prediction.reason in LATE
        finally:
            objective_s = None if manifest.objective_ms is None else manifest.objective_ms / 1000
            self._admission.end(
                query.application, holder, is_late=is_late, objective_s=objective_s, now_s=time.monotonic()
            )
            self.waiting -= 1
            if not self.waiting:
                self.none_waits.set()
        if repeated:
            await self._compare(query, asked.prediction, asked.record.partition, asked.sent)
        return asked.prediction

    def _wait_s(self, call: ServedCall, query: Query, manifest: ApplicationManifest) -> float:
        objectives_ms = [ms for ms in (manifest.objective_ms, query.deadline_ms) if ms is not None]
        wait_s = min(objectives_ms) / 1000 + GRACE_S if objectives_ms else self._timeout_s
        return wait_s if call.timeout_s is None else min(wait_s, call.timeout_s)

    # --- repeats ----------------------------------------------------------------------------------------------------
    async def _repeatable(self, call: ServedCall, query: Query, manifest: ApplicationManifest) -> Prediction:
        """Return the answer to a query of this id, of a call that begins now or of one that waits for it already."""
        name = query.application, query.context, query.query_id
        while (running := self._running.get(name)) is not None and not is_same_question(query, running[0]):
            await asyncio.wait([task := running[1]])
            if not task.cancelled() and task.exception() is None:
                raise _other_question(query)  # that one's body is the recorded one
        if running is None:
            task = asyncio.create_task(self._asked(call, query, manifest, repeated=True))
            running = self._running[name] = query, task
            task.add_done_callback(lambda done: self._ended(name, done))
        return await asyncio.shield(running[1])

    def _ended(self, name: tuple[str, str | None, str | None], task: "asyncio.Task[Prediction]") -> None:
        del self._running[name]
        if not task.cancelled():
            task.exception()  # its client may have hung up

    async def _compare(self, query: Query, prediction: Prediction, partition: int, sent: "asyncio.Future[Any]") -> None:
        """Raise a `Refusal` when the answer is to an earlier query of the same id that asked something else."""
        try:
            if prediction.query_offset == (await sent).offset:
                return
        except KafkaError:
            pass  # the answer is here, of this query or of an earlier one
        first = await self.pipeline.history.query_at(partition, prediction.query_offset)
        if first is not None and not is_same_question(query, first):
            raise _other_question(query)


def is_same_question(query: Query, other: Query) -> bool:
    """Return whether two queries of one id ask the same; a repeat may be in more of a hurry.

    >>> is_same_question(Query(application="a", input=[1], deadline_ms=5), Query(application="a", input=[1.0]))
    True
    """
    names = ("application", "context", "input", "inputs", "models", "features")
    return all(getattr(query, name) == getattr(other, name) for name in names)


def _other_question(query: Query) -> Refusal:
    text = f"query_id {shown(query.query_id)} stands for another query already: give a new id, or the same body"
    return Refusal(422, text, query_id=query.query_id)
