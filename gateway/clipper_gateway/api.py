"""The pipeline's own HTTP API, and the probes."""

import asyncio
import re
import time
from contextlib import suppress
from typing import Any, Literal, TypeAlias, get_args

import msgspec
import numpy as np
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import Response
from starlette.types import Receive

from clipper_agents.settings.error_messages import explained
from clipper_agents.status.build import ENDED
from clipper_gateway.callers import Caller
from clipper_gateway.calls import Calls, PredictBody
from clipper_gateway.errors import Refusal
from clipper_gateway.inference import own_id
from clipper_gateway.rest import HttpCall, json_response
from clipper_stream.errors import shown
from clipper_stream.http.query_status import FeedbackReport, QueryStatus
from clipper_stream.sequential_testing.rollout_rule import Finding
from clipper_topics.feedback import Feedback
from clipper_topics.manifests import ModelManifest
from clipper_topics.query import ID_CHARACTERS

MOST_FEEDBACK = 1_000
"""In one request."""
MOST_WAIT_S = 60.0
"""Of a request for an answer: proxies end connections that are silent for longer."""
LOOK_AGAIN_S = 0.5
VERDICTS = {*(one.replace(" ", "_") for one in get_args(Finding)), *ENDED.values()}
READ_AGAIN_BYTES = 65_536
SMALL_BODY_BYTES, MOST_DECODING_US = 2_048, 40_000
"""Of JSON: what is decoded unseen, and how long anything else may take, in which nobody else is served. Kafka takes a
record of 1 MiB, which has at most 116,000 numbers that are no small integers: they take 10 ms."""


class _TextConvertor(PathConvertor):
    """Any text, of which line breaks and slashes are a part as well."""

    regex = "(?s:.*)"


register_url_convertor("text", _TextConvertor())


class FeedbackBody(Feedback, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A feedback, as the body of a request or one of its list."""


class Accepted(msgspec.Struct):
    """Feedback that was taken, to be counted later."""

    accepted: int
    """How many records were written."""


Asked: TypeAlias = tuple[str, str, str | None]
"""A query's id, application and context."""
_bodies, _feedback = msgspec.json.Decoder(PredictBody), msgspec.json.Decoder(FeedbackBody)
_feedback_lists = msgspec.json.Decoder(list[FeedbackBody])
_encode = msgspec.json.Encoder().encode
_HALF_PAIR = re.compile(rb"\\u[dD][89abAB]\w\w(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]\w\w)\\u[dD][c-fC-F]\w\w")


def decoding_us(body: bytes) -> float:
    """Return how long JSON may take to decode and to pass on, at worst, in microseconds.

    >>> [round(decoding_us(body), 2) for body in (b"[[], 1.5]", b"[1e300]", b'["an exponent: 1e9"]')]
    [0.88, 20.4, 1.8]
    """
    found = 0.08 * body.count(b",") + 0.12 * body.count(b"\\") + 0.4 * sum(map(body.count, (b"[", b"{", b":")))
    if found > MOST_DECODING_US or not (b"e" in body or b"E" in body):
        return found
    text = np.frombuffer(body + b"    ", np.uint8)
    is_digit = text - ord("0") < 10  # noqa: PLR2004 - below there are none: it wraps
    at = np.flatnonzero((text[1:-4] | 32 == ord("e")) & is_digit[:-5]) + 2
    at += (text[at] == ord("-")) | (text[at] == ord("+"))
    large = int(np.count_nonzero(is_digit[at] & is_digit[at + 1] & is_digit[at + 2]))
    return found + (len(at) - large) + 20.0 * large


def decoded(decoder: Any, body: bytes) -> Any:
    """Return the content of a body of JSON."""
    if len(body) > SMALL_BODY_BYTES and (us := decoding_us(body)) > MOST_DECODING_US:
        what = f"the body has so many values that it would take up to {us / 1000:.0f} ms to decode"
        raise Refusal(413, f"{what}, others wait {MOST_DECODING_US // 1000} ms: send it in parts, or as binary")
    try:
        return decoder.decode(body)
    except (ValueError, RecursionError) as error:  # msgspec's own errors and UnicodeDecodeError are ValueErrors
        raise Refusal(400, f"the body cannot be used: {_reason(error, body, decoder.type)}") from error


def _reason(error: Exception, body: bytes, record: Any) -> str:
    """What is wrong with a body: its field and value, where it is JSON and small enough to be read again."""
    if half := _HALF_PAIR.search(body):  # which msgspec calls a truncated body
        return f"{half[0].decode()} is half of a surrogate pair"
    cause = error.__cause__ or error
    with suppress(ValueError, RecursionError):
        if isinstance(cause, msgspec.ValidationError) and len(body) <= READ_AGAIN_BYTES:
            return explained(str(cause), msgspec.json.decode(body), record)
    return str(error)


async def _is_gone(receive: Receive) -> Literal[True]:
    while (await receive())["type"] != "http.disconnect":
        pass
    return True


class OwnApi:
    """Handlers of the API under /v1, and of the probes."""

    def __init__(self, calls: Calls, horizon_s: float) -> None:
        self._calls, self._horizon_s = calls, horizon_s

    # --- questions --------------------------------------------------------------------------------------------------
    async def predict(self, call: HttpCall) -> Response:
        _check_json(call)
        query: PredictBody = decoded(_bodies, call.body)
        if query.application not in {"", call.application}:
            raise Refusal(400, f"application is {shown(query.application)}, the path names another: leave it out")
        query.application, query.query_id = (
            call.application,
            own_id(call.headers.get("idempotency-key"), query.query_id),
        )
        prediction = await self._calls.predict(call, query)
        return Response(_encode(prediction), media_type="application/json")

    async def feedback(self, call: HttpCall) -> Response:
        """Take one feedback or several; 202 once Kafka has them all, and none where one of them cannot be taken."""
        _check_json(call)
        is_list = call.body.lstrip()[:1] == b"["
        given = decoded(_feedback_lists, call.body) if is_list else [decoded(_feedback, call.body)]
        if not 1 <= len(given) <= MOST_FEEDBACK:
            raise Refusal(400, f"the list has {len(given)} feedbacks: give 1 to {MOST_FEEDBACK}")
        await self._calls.give(call, given)
        return json_response(Accepted(len(given)), 202)

    # --- answers ----------------------------------------------------------------------------------------------------
    async def query(self, call: HttpCall) -> Response:
        """Say what became of a query; wait for its answer as long as the client wants."""
        query_id, application, context = call.path["query_id"], call.query.get("application"), call.query.get("context")
        if not application:
            raise Refusal(400, "the parameter application is missing: give the query's application, ?application=NAME")
        call.caller.require("read", application)
        self._calls.applications.manifest(application)
        if not (1 <= len(query_id) <= ID_CHARACTERS and 1 <= len(context or "?") <= ID_CHARACTERS):
            raise Refusal(400, f"query_id and context have 1 to {ID_CHARACTERS} characters: give those of the query")
        wait_s = _seconds(call.query.get("wait_s", "0"))
        with self._calls.shares.polls.held(call.caller.holder):
            found = await self._waited(call, (query_id, application, context), wait_s)
        if found is None:
            what = f"query {shown(query_id)} of {application} is not in the logs of the last {self._horizon_s:g} s"
            raise Refusal(404, f"{what}: check its id, and give its context if it has one")
        return json_response(found, 202 if found.prediction is None else 200)

    async def _waited(self, call: HttpCall, asked: Asked, wait_s: float) -> QueryStatus | None:
        """Return what became of a query; before its answer when the wait, the gateway or the connection ends."""
        end_s = time.monotonic() + wait_s
        back_s, ends = self._horizon_s, [asyncio.ensure_future(self._calls.pipeline.ending.wait())]
        if wait_s and call.receive is not None:
            ends.append(asyncio.ensure_future(_is_gone(call.receive)))
        try:
            while True:
                found = await self._history(call.caller, asked, back_s)
                left_s = end_s - time.monotonic()
                if left_s <= 0 or (found is not None and found.prediction is not None):
                    return found
                ended, _ = await asyncio.wait(
                    ends, timeout=min(LOOK_AGAIN_S, left_s), return_when=asyncio.FIRST_COMPLETED
                )
                if ended:
                    return found
                back_s = min(back_s, MOST_WAIT_S)  # what was not there before is new
        finally:
            for end in ends:
                end.cancel()

    async def _history(self, caller: Caller, asked: Asked, back_s: float) -> QueryStatus | None:
        history = await self._calls.pipeline.read_query(caller, *asked, back_s)
        if history.prediction is None and history.query is None:
            if not history.complete:
                raise Refusal(503, "the logs could not be read whole in time: try again", retry_after_s=5.0)
            return None
        feedback = [
            FeedbackReport(**msgspec.structs.asdict(one.said), outcome=one.outcome, explanation=one.explanation)
            for one in history.feedback
        ]
        return QueryStatus(asked[0], history.prediction, feedback, history.complete)

    async def verdict(self, call: HttpCall) -> Response:
        """Say how a trial stands or ended: 200, or 409 where that is none of the verdicts that the caller expects."""
        call.caller.require("read", call.application)
        expected = {*call.text("expect").split(",")} if "expect" in call.query else set[str]()
        if unknown := sorted(expected - VERDICTS):
            raise Refusal(400, f"expect has {shown(unknown[0])}: give some of {', '.join(sorted(VERDICTS))}")
        found = self._calls.applications.verdict(call.application, call.path["model"])
        return json_response(found, 200 if not expected or found["verdict"] in expected else 409)

    # --- probes -----------------------------------------------------------------------------------------------------
    async def live(self, _: HttpCall) -> Response:
        return json_response({"live": True})

    async def ready(self, _: HttpCall) -> Response:
        reasons = self._calls.pipeline.probed()
        return json_response({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    # --- what there is ----------------------------------------------------------------------------------------------
    async def applications(self, call: HttpCall) -> Response:
        call.caller.require("read")
        self._calls.applications.check_known()
        found = self._calls.applications.applications
        return json_response([one for name, one in sorted(found.items()) if call.caller.sees(name)])

    async def models(self, call: HttpCall) -> Response:
        """List the versions that these applications name; all of them for who may read all."""
        call.caller.require("read")
        deployed, sees_all = self._calls.applications, call.caller.applications is None
        deployed.check_known()
        refs = {ref for name, one in deployed.applications.items() if call.caller.sees(name) for ref in one.refs}
        return json_response([_public(one) for ref, one in sorted(deployed.models.items()) if sees_all or ref in refs])


def _check_json(call: HttpCall) -> None:
    kind = call.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, f"content-type {shown(kind)}: send application/json")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_WAIT_S:
        raise Refusal(400, f"wait_s is {shown(text)}: give seconds from 0 to {MOST_WAIT_S:g}")
    return seconds


def _public(model: ModelManifest) -> dict[str, Any]:
    """What callers may know of a version: not where it lies, nor its parameters."""
    said = {"name": model.name, "version": model.version, "runtime": model.runtime, "input": model.input}
    return said | {"colocated": model.colocated, "retired": model.retired}
