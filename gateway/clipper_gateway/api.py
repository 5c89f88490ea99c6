"""The pipeline's own HTTP API, and the probes."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from sse_starlette import EventSourceResponse
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import Response

from clipper_agents.status.query_history import partitions_of_query
from clipper_gateway.calls import AskOptions, Calls
from clipper_gateway.errors import Refusal, refusal_of
from clipper_gateway.http_messages import Accepted, PredictBody
from clipper_gateway.inference import own_id
from clipper_gateway.rest import HttpCall, json_response
from clipper_stream.errors import ClipperError, shown
from clipper_stream.http.query_status import FeedbackReport, QueryStatus
from clipper_topics import codec
from clipper_topics.manifests import ModelManifest
from clipper_topics.query import ID_CHARACTERS, Query

MOST_FEEDBACK = 1_000
"""In one request."""
MOST_WAIT_S = 60.0
"""Of a request for an answer: proxies end connections that are silent for longer."""
LOOK_AGAIN_S = 0.5


class _TextConvertor(PathConvertor):
    """Any text, of which line breaks and slashes are a part as well."""

    regex = "(?s:.*)"


register_url_convertor("text", _TextConvertor())
_bodies = msgspec.json.Decoder(PredictBody)
_several = msgspec.json.Decoder(list[msgspec.Raw])
_encode = msgspec.json.Encoder().encode


def decoded(decoder: Any, body: bytes) -> Any:
    """Return the content of a body of JSON."""
    try:
        return decoder.decode(body)
    except (ValueError, RecursionError) as error:  # msgspec's own errors and UnicodeDecodeError are ValueErrors
        raise Refusal(400, f"the body cannot be used: {error}") from error


class OwnApi:
    """Handlers of the API under /v1, and of the probes."""

    def __init__(self, calls: Calls, horizon_s: float) -> None:
        self._calls, self._horizon_s = calls, horizon_s

    # --- questions --------------------------------------------------------------------------------------------------
    async def predict(self, call: HttpCall) -> Response:
        """Answer a query."""
        _check_json(call)
        asked: PredictBody = decoded(_bodies, call.body)
        query = Query(
            application=call.path["name"],
            query_id=own_id(call.headers.get("idempotency-key"), asked.query_id),
            context=asked.context,
            input=asked.input,
            inputs=asked.inputs,
            deadline_ms=asked.deadline_ms,
            models=asked.models,
            features=asked.features,
        )
        options = AskOptions(strict=asked.strict, headers=call.record_headers)
        prediction = await self._calls.predict(call.caller, query, options)
        return Response(_encode(prediction), media_type="application/json")

    async def feedback(self, call: HttpCall) -> Response:
        """Take one feedback or several; 202 once Kafka has them all, and none where one of them cannot be taken."""
        _check_json(call)
        is_list = call.body.lstrip()[:1] == b"["
        records = [bytes(one) for one in decoded(_several, call.body)] if is_list else [call.body]
        given = [decoded(codec.feedback, one) for one in records]
        if not 1 <= len(given) <= MOST_FEEDBACK:
            raise Refusal(400, f"the list has {len(given)} feedbacks: give 1 to {MOST_FEEDBACK}")
        await self._calls.give(call.caller, given, call.record_headers)
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
            raise Refusal(
                400, f"query_id and context have 1 to {ID_CHARACTERS} characters each: give those of the query"
            )
        wait_s = _seconds(call.query.get("wait_s", "0"))
        if "text/event-stream" in call.headers.get("accept", ""):
            return EventSourceResponse(self._events(query_id, application, context, wait_s or MOST_WAIT_S))
        found = await self._waited(query_id, application, context, wait_s)
        if found is None:
            raise Refusal(
                404,
                f"query {shown(query_id)} of application {application} is not in the logs of the last "
                f"{self._horizon_s:g} s: check its id, and give its context if it has one",
            )
        return json_response(found, 202 if found.prediction is None else 200)

    async def _waited(self, query_id: str, application: str, context: str | None, wait_s: float) -> QueryStatus | None:
        end_s = time.monotonic() + wait_s
        back_s = self._horizon_s
        while True:
            found = await self._history(query_id, application, context, back_s)
            left_s = end_s - time.monotonic()
            if left_s <= 0 or (found is not None and found.prediction is not None):
                return found
            await asyncio.sleep(min(LOOK_AGAIN_S, left_s))
            back_s = min(back_s, MOST_WAIT_S)  # what was not there before is new

    async def _history(self, query_id: str, application: str, context: str | None, back_s: float) -> QueryStatus | None:
        pipeline = self._calls.pipeline
        pipeline.check()
        partitions = partitions_of_query(query_id, context, pipeline.client.partitions)
        since_ms = int((time.time() - back_s) * 1000)
        history = await pipeline.history.read(query_id, application, partitions, since_ms=since_ms)
        if history.prediction is None and history.query is None:
            if not history.complete:
                raise Refusal(503, "the logs could not be read whole in time: try again", retry_after_s=5.0)
            return None
        feedback = [
            FeedbackReport(**msgspec.structs.asdict(one.said), outcome=one.outcome, explanation=one.explanation)
            for one in history.feedback
        ]
        return QueryStatus(query_id, history.prediction, feedback, history.complete)

    async def _events(
        self, query_id: str, application: str, context: str | None, wait_s: float
    ) -> AsyncIterator[dict[str, str]]:
        try:
            found = await self._waited(query_id, application, context, wait_s)
        except ClipperError as error:
            yield {"event": "problem", "id": query_id, "data": refusal_of(error).body().decode()}
            return
        is_answered = found is not None and found.prediction is not None
        yield {"event": "answer" if is_answered else "unanswered", "id": query_id, "data": _encode(found).decode()}

    # --- probes -----------------------------------------------------------------------------------------------------
    async def live(self, _: HttpCall) -> Response:
        """Answer: who answers lives."""
        return json_response({"live": True})

    async def ready(self, _: HttpCall) -> Response:
        """Answer 200, or 503 with the reasons."""
        reasons = self._calls.pipeline.probed()
        return json_response({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    # --- what there is ----------------------------------------------------------------------------------------------
    async def applications(self, call: HttpCall) -> Response:
        """List the applications that the caller may ask about."""
        call.caller.require("read")
        of, found = call.caller.applications, self._calls.applications.applications
        return json_response([one for name, one in sorted(found.items()) if of is None or name in of])

    async def models(self, call: HttpCall) -> Response:
        """List the versions that these applications name; all of them for who may read all."""
        call.caller.require("read")
        of, deployed = call.caller.applications, self._calls.applications
        refs = {ref for name, one in deployed.applications.items() if of is None or name in of for ref in one.refs}
        return json_response(
            [_public(one) for ref, one in sorted(deployed.models.items()) if of is None or ref in refs]
        )


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
