"""What a request of the Open Inference Protocol V2 asks and an answer says beside its tensors, for HTTP and gRPC alike.

Source: Open Inference Protocol, "Inference Request JSON Object" and "Parameters".
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from clipper_gateway.callers import Caller
from clipper_gateway.calls import Calls, PredictBody
from clipper_gateway.errors import Refusal
from clipper_gateway.served_call import ServedCall
from clipper_gateway.tensors import OUTPUT, Tensor, input_metadata, output_metadata, output_tensor, rows_of
from clipper_stream.errors import shown
from clipper_topics.manifests import ApplicationManifest
from clipper_topics.prediction import Prediction

QUERY_SHARE = 0.9
"""Of the time that a client leaves, for the query; the rest is for its answer's way back."""
PARAMETERS = ("context", "deadline_ms", "query_id", "models", "features", "strict")
"""Of a request, that this gateway knows; others are ignored."""
_LISTS: Mapping[str, Callable[[str], list[Any]]] = {
    "models": lambda text: [name for part in text.split(",") if (name := part.strip())],
    "features": msgspec.json.Decoder(list[float]).decode,
}
"""How they are written as text: parameters of gRPC are no lists."""
_EXPECTED = "context, query_id, models: text; deadline_ms: a number; features: a list of numbers; strict: true or false"


class Inference:
    """What both wires ask of an application: its metadata, and answers."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def manifest(self, caller: Caller, name: str, version: str) -> ApplicationManifest:
        """Return an application that the caller may read about or ask; a version is its revision, or empty."""
        caller.require("read" if "read" in caller.rights else "predict", name)
        manifest = self._calls.applications.manifest(name)
        if version not in {"", str(manifest.revision)}:
            what = f"application {manifest.name} has revision {manifest.revision}, not {shown(version)}"
            raise Refusal(404, f"{what}: ask for that revision, or for no version")
        return manifest

    def metadata(self, caller: Caller, name: str, version: str) -> dict[str, Any]:
        manifest = self.manifest(caller, name, version)
        return {
            "name": manifest.name,
            "versions": [str(manifest.revision)],
            "platform": "clipper-stream",
            "inputs": input_metadata(manifest.input),
            "outputs": output_metadata(manifest, self._calls.answered.get(manifest.name)),
        }

    def is_ready(self, caller: Caller, name: str, version: str) -> bool:
        """Return whether a version that may answer for the application is served."""
        return self._calls.applications.is_ready(self.manifest(caller, name, version).name)

    async def infer(
        self, call: ServedCall, manifest: ApplicationManifest, tensor: Tensor, parameters: Mapping[str, Any]
    ) -> tuple[dict[str, str | float | bool], Tensor]:
        """Ask the rows of a tensor as one query, within the time that the client leaves.

        Returns the parameters of the response, in values that gRPC has too, and the outputs as a tensor.
        """
        own = call.headers.get("idempotency-key")
        query = query_of(manifest.name, rows_of(tensor, manifest.input), parameters, own)
        if call.timeout_s is not None and query.deadline_ms is None:
            query.deadline_ms = max(1.0, call.timeout_s * 1000 * QUERY_SHARE)
        prediction = await self._calls.predict(call, query)
        several = prediction.outputs
        outputs = [prediction.output] if isinstance(several, msgspec.UnsetType) else several
        return response_parameters(prediction), output_tensor(OUTPUT, outputs)


def check_outputs(names: Iterable[str]) -> None:
    """Raise a `Refusal` where another output is asked for than there is, in small or capital letters."""
    if wrong := [name for name in names if name.lower() != OUTPUT]:
        raise Refusal(400, f"output {shown(wrong[0])}: the only one is {OUTPUT!r}, ask for it or for none")


def query_of(
    application: str, rows: Sequence[Any], parameters: Mapping[str, Any], idempotency_key: str | None = None
) -> PredictBody:
    """Return the query of a V2 request; bounds are those of `check_query`, in the call."""
    given = {name: parameters[name] for name in PARAMETERS if parameters.get(name) is not None}
    try:
        for name, read in _LISTS.items():
            if isinstance(text := given.get(name), str):
                given[name] = read(text)
        query = msgspec.convert(given, PredictBody)
    except (msgspec.MsgspecError, ValueError) as error:
        what = f"the parameters {shown(dict(parameters))} cannot be used ({error})"
        raise Refusal(400, f"{what}: give {_EXPECTED}") from error
    query.application, query.query_id = application, own_id(idempotency_key, query.query_id)
    if len(rows) == 1:
        query.input = rows[0]
    else:
        query.inputs = list(rows)
    return query


def own_id(in_header: str | None, in_body: str | None) -> str | None:
    """Return the id that a client chose for its query, in a header or metadata, or in the body."""
    if in_header is not None and not re.fullmatch("[!-~]*", in_header):
        raise Refusal(400, f"Idempotency-Key {shown(in_header)} is not visible ASCII: give such an id as query_id")
    if in_header is None or in_body in {None, in_header}:
        found = in_header if in_body is None else in_body
        if found in {"", ".", ".."}:
            raise Refusal(400, f"the query's id is {shown(found)}, which no path can have: give another, or none")
        return found
    raise Refusal(400, f"Idempotency-Key {shown(in_header)} and query_id {shown(in_body)} differ: give one of them")


def response_parameters(prediction: Prediction) -> dict[str, str | float | bool]:
    """Return how a query was decided."""
    policy = prediction.policy
    named = {"reason": prediction.reason, "policy": None if policy is None else policy.name}
    return {
        "query_id": prediction.query_id,
        "confidence": prediction.confidence,
        "default": prediction.default,
        "models": ",".join(f"{answer.model}:{answer.version}" for answer in prediction.models if answer.served),
        "latency_ms": prediction.latency_ms,
        **{name: text for name, text in named.items() if text is not None},
    }
