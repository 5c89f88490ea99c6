"""The Open Inference Protocol V2 over gRPC, with gRPC's own health service: an application is a model of the protocol.

    metadata --> caller --> message, in time and in bounds --> method --> response --> log, metrics
     400 431    401 429              408 400 413               Refusal

Rules of this file:
- A message is read only after its metadata says who asks, and within `BODY_S`. gRPC waits for the message of a unary
  method first, and without end: so methods are registered as streams, which are the same on the wire.
- Metadata that decides something stands once in a call: two proxies would each believe another one.
- An error that is no `ClipperError` is a defect: logged with its traceback, answered by INTERNAL without words of it.

Source: Open Inference Protocol, "GRPC"; gRPC, "GRPC Health Checking Protocol".
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2 as health
from open_inference.grpc import protocol as oip

from clipper_agents.observability.logging import event
from clipper_gateway import tensors
from clipper_gateway.access import Access, Caller
from clipper_gateway.calls import Calls
from clipper_gateway.errors import Refusal, refusal_of
from clipper_gateway.inference import check_visible, outputs_of, query_of, response_parameters
from clipper_gateway.request_log import RecordHeaders, checked_request_id, record_headers
from clipper_gateway.rest import BODY_S, CLIENT_GONE
from clipper_stream.errors import ClipperError, InvalidSetting, shown
from clipper_topics.manifests import ApplicationManifest

logger = logging.getLogger(__name__)

SERVICE, HEALTH_SERVICE = "inference.GRPCInferenceService", "grpc.health.v1.Health"
METADATA_BYTES = 16 * 1024
MOST_WATCHES = 64
"""Of health, at once: anybody may watch, and a watch never ends."""
WATCH_S = 0.5
"""How late a change of health may be told."""
QUERY_SHARE = 0.9
"""Of the time that a client leaves, for the query; the rest is for its answer's way back."""
DETAILS_CHARACTERS = 512
"""Of an error: clients take 8 KiB of metadata, in which a character may be 12 bytes."""
NOBODY = Caller("", frozenset(), frozenset())
LIVE = oip.ServerLiveResponse(live=True)
SERVER = oip.ServerMetadataResponse(name="clipper-stream", version=version("clipper-stream"))
SINGLE = ("authorization", "x-api-key", "idempotency-key")

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second gateway on the same port fails at its start
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES),
    ("grpc.compression_enabled_algorithms_bitset", 1),  # none: a kilobyte may unpack to a gigabyte
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)
_CONTENTS = {
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    **{name: f"{name.lower()}_contents" for name in ("BOOL", "INT64", "UINT64", "FP32", "FP64", "BYTES")},
}
"""Where the typed values of a datatype are."""
_PARAMETERS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


@dataclass(slots=True)
class GrpcCall:
    """A call as methods see it; `timeout_s` is until its client gives up, where it said when."""

    metadata: dict[str, Any]
    caller: Caller = NOBODY
    application: str = ""
    record_headers: RecordHeaders = field(default_factory=list)
    timeout_s: float | None = None


Method: TypeAlias = Callable[[Any, GrpcCall], Awaitable[Any]]
Observe: TypeAlias = Callable[[str, str, int, float, str, str], None]
"""Is told of each call: method, application, status as of HTTP, seconds, name of the caller, id of the request."""


class GrpcServer:
    """Serves the calls of one gateway over gRPC, on the event loop that starts it.

    Args:
        calls: Asks the pipeline.
        access: Says who asks.
        reasons: Why the gateway does not serve now; empty when it does.
        observe: Is told of each call that has ended.
    """

    def __init__(self, calls: Calls, access: Access, reasons: Callable[[], list[str]], observe: Observe) -> None:
        self._calls, self._access, self._reasons, self._observe = calls, access, reasons, observe
        self._server: Any = None
        self._watches, self._is_ending = 0, asyncio.Event()

    async def start(
        self, address: str, port: int, *, max_body_bytes: int, max_calls: int, tls: tuple[str, str] | None = None
    ) -> int:
        """Listen, and return the port.

        Args:
            address: Where to listen.
            port: 0: a free one.
            max_body_bytes: Of a request's message.
            max_calls: At once, of all clients; a further one is refused.
            tls: PEM files of the certificate chain and of its key; absent: no TLS.

        Raises:
            InvalidSetting: the address cannot be listened at, or the certificate cannot be used.
        """
        options = (*_OPTIONS, ("grpc.max_receive_message_length", max_body_bytes))
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=max_calls)
        server.add_generic_rpc_handlers(self._handlers())
        where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        try:
            credentials = None if tls is None else _credentials(*tls)
            bound: int = server.add_secure_port(where, credentials) if credentials else server.add_insecure_port(where)
        except (OSError, RuntimeError) as error:
            reason = f"the gateway cannot listen at {where} for gRPC: {error}"
            raise InvalidSetting(
                f"{reason}; set gateway.grpc_port, or give a certificate and its key as PEM"
            ) from error
        await server.start()
        self._server = server
        return bound

    async def stop(self, grace_s: float) -> None:
        """Take no further call, and end those that still run after `grace_s` seconds."""
        self._is_ending.set()
        if self._server is not None:
            await self._server.stop(grace_s)

    def _handlers(self) -> list[Any]:
        infer = {
            "ModelInfer": self._handler("ModelInfer", oip.ModelInferRequest, self._infer),
            "ModelMetadata": self._handler("ModelMetadata", oip.ModelMetadataRequest, self._model_metadata),
            "ModelReady": self._handler("ModelReady", oip.ModelReadyRequest, self._model_ready),
            "ServerMetadata": self._handler("ServerMetadata", oip.ServerMetadataRequest, _constant(SERVER)),
            "ServerLive": self._handler("ServerLive", oip.ServerLiveRequest, _constant(LIVE), is_public=True),
            "ServerReady": self._handler("ServerReady", oip.ServerReadyRequest, self._ready, is_public=True),
        }
        check = self._handler("Check", health.HealthCheckRequest, self._check, is_public=True)
        watch = grpc.stream_stream_rpc_method_handler(self._watch, None, _serialized)
        return [
            grpc.method_handlers_generic_handler(SERVICE, infer),
            grpc.method_handlers_generic_handler(HEALTH_SERVICE, {"Check": check, "Watch": watch}),
        ]

    # --- any call ---------------------------------------------------------------------------------------------------
    def _handler(self, name: str, request: Any, method: Method, *, is_public: bool = False) -> Any:
        async def serve(_: Any, context: Any) -> Any:
            started_s, status = time.perf_counter(), CLIENT_GONE
            metadata = context.invocation_metadata()
            call = GrpcCall(dict(metadata))
            request_id = checked_request_id(call.metadata.get("x-request-id"))
            trailing = (("x-request-id", request_id),)
            try:
                try:
                    if not is_public:
                        call.caller = await self._identified(metadata)
                    call.record_headers = record_headers(call.metadata.get("traceparent"), request_id)
                    message = await _message(request, context)
                    call.timeout_s = context.time_remaining()
                    response = await method(message, call)
                    context.set_trailing_metadata(trailing)
                    status = 200
                    return response
                except ClipperError as error:
                    refusal = _refusal(error)
                except Exception:
                    logger.exception("a call failed method=%s request_id=%s", name, request_id)
                    refusal = Refusal(500, f"a defect of this gateway: its log has it under {request_id}")
                status, details = refusal.status, str(refusal)[:DETAILS_CHARACTERS]
                await context.abort(refusal.grpc_code, details, (*trailing, *_trailing(refusal)))
            finally:
                took_s = time.perf_counter() - started_s
                self._observe(name, call.application, status, took_s, call.caller.name, request_id)

        return grpc.stream_unary_rpc_method_handler(serve, None, _serialized)

    async def _identified(self, metadata: Sequence[tuple[str, Any]]) -> Caller:
        names = [name for name, _ in metadata]
        for name in SINGLE:
            if names.count(name) > 1:
                raise Refusal(400, f"metadata {name} stands twice: send it once")
        given = dict(metadata)
        return await self._access.identify(given.get("authorization"), given.get("x-api-key"))

    # --- methods ----------------------------------------------------------------------------------------------------
    async def _infer(self, request: Any, call: GrpcCall) -> Any:
        name = call.application = request.model_name
        call.caller.require("predict", name)
        manifest = self._calls.applications.manifest(name)
        rows = tensors.rows_of(_input(request), manifest.input)
        parameters = {key: _plain(value) for key, value in request.parameters.items()}
        query, options = query_of(name, rows, parameters, call.metadata.get("idempotency-key"), call.record_headers)
        if call.timeout_s is not None:
            options.timeout_s, left_ms = call.timeout_s, call.timeout_s * 1000 * QUERY_SHARE
            if query.deadline_ms is None and (manifest.objective_ms is None or left_ms < manifest.objective_ms):
                query.deadline_ms = max(1.0, left_ms)
        prediction = await self._calls.predict(call.caller, query, options)
        response = oip.ModelInferResponse(model_name=name, id=request.id)
        for key, value in response_parameters(prediction).items():
            setattr(response.parameters[key], _PARAMETERS[type(value)], value)
        output = tensors.output_tensor(tensors.OUTPUT, outputs_of(prediction))
        _add_output(response, output, is_raw=bool(request.raw_input_contents))
        return response

    async def _model_metadata(self, request: Any, call: GrpcCall) -> Any:
        manifest, tensor = self._manifest(request.name, call), oip.ModelMetadataResponse.TensorMetadata
        return oip.ModelMetadataResponse(
            name=manifest.name,
            platform="clipper-stream",
            inputs=[tensor(**one) for one in tensors.input_metadata(manifest)],
            outputs=[tensor(**one) for one in tensors.output_metadata(manifest)],
        )

    async def _model_ready(self, request: Any, call: GrpcCall) -> Any:
        manifest = self._manifest(request.name, call)
        return oip.ModelReadyResponse(ready=self._calls.applications.is_ready(manifest.name))

    def _manifest(self, name: str, call: GrpcCall) -> ApplicationManifest:
        call.application = name
        check_visible(call.caller, name)
        return self._calls.applications.manifest(name)

    async def _ready(self, _: Any, __: GrpcCall) -> Any:
        return oip.ServerReadyResponse(ready=not self._reasons())

    # --- health -----------------------------------------------------------------------------------------------------
    async def _check(self, request: Any, _: GrpcCall) -> Any:
        found = self._health(request.service)
        if found.status == health.HealthCheckResponse.SERVICE_UNKNOWN:
            raise Refusal(404, f"there is no service {shown(request.service)}: ask for {SERVICE}, or for none")
        return found

    async def _watch(self, _: Any, context: Any) -> None:
        if self._watches >= MOST_WATCHES:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MOST_WATCHES} watch already: call Check")
        self._watches += 1
        try:
            request, told = await _message(health.HealthCheckRequest, context), None
            while told is None or not self._is_ending.is_set():
                if (found := self._health(request.service)) != told:
                    await context.write(found)
                    told = found
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._is_ending.wait(), WATCH_S)
        except Refusal as error:
            await context.abort(error.grpc_code, str(error))
        finally:
            self._watches -= 1

    def _health(self, service: str) -> Any:
        states = health.HealthCheckResponse
        if service not in {"", SERVICE}:
            return states(status=states.SERVICE_UNKNOWN)
        serves = not self._is_ending.is_set() and not self._reasons()
        return states(status=states.SERVING if serves else states.NOT_SERVING)


def _constant(response: Any) -> Method:
    async def answer(_: Any, __: GrpcCall) -> Any:
        return response

    return answer


async def _message(request: Any, context: Any) -> Any:
    try:
        async with asyncio.timeout(BODY_S):
            raw = await context.read()
    except TimeoutError as error:
        raise Refusal(408, f"the message was not here within {BODY_S:g} s") from error
    if raw is grpc.aio.EOF:
        raise Refusal(400, "the call has no message, or one that is larger than allowed: send one")
    try:
        return request.FromString(raw)
    except DecodeError as error:
        raise Refusal(400, f"the message is no {request.DESCRIPTOR.name}: see the protocol's file") from error


def _credentials(certfile: str, keyfile: str) -> Any:
    return grpc.ssl_server_credentials([(Path(keyfile).read_bytes(), Path(certfile).read_bytes())])


def _serialized(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _refusal(error: ClipperError) -> Refusal:
    refusal = refusal_of(error)
    if refusal.status >= 500 and refusal is not error:  # noqa: PLR2004 - as of HTTP
        event(logger, "a call failed", logging.WARNING, status=refusal.status, error=error)
    return refusal


def _trailing(refusal: Refusal) -> list[tuple[str, str]]:
    given = {**refusal.headers, "query-id": refusal.query_id, "reason": refusal.reason}
    return [(name, text) for name, text in given.items() if text is not None and text.isascii() and text.isprintable()]


def _plain(parameter: Any) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


def _input(request: Any) -> tensors.Tensor:
    inputs, raw = request.inputs, request.raw_input_contents
    if len(inputs) != 1 or len(raw) > 1:
        what = f"the request has {len(inputs)} inputs and {len(raw)} raw_input_contents"
        raise Refusal(400, f"{what}: give one tensor, whose first dimension is the rows")
    name, datatype, shape, contents = inputs[0].name, inputs[0].datatype, [*inputs[0].shape], inputs[0].contents
    if not raw:
        return tensors.tensor_of_json(
            name, datatype, shape, [*getattr(contents, _CONTENTS.get(datatype, "fp32_contents"))]
        )
    if contents.ByteSize():
        raise Refusal(400, f"input {shown(name)} has contents and raw_input_contents: give one of them")
    return tensors.tensor_of_bytes(name, datatype, shape, raw[0])


def _add_output(response: Any, tensor: tensors.Tensor, *, is_raw: bool) -> None:
    output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    if tensor.content_type is not None:
        output.parameters["content_type"].string_param = tensor.content_type
    if is_raw:
        response.raw_output_contents.append(tensors.bytes_of(tensor))
    else:
        values = [each.encode() if isinstance(each, str) else each for each in tensors.json_data_of(tensor)]
        getattr(output.contents, _CONTENTS[tensor.datatype]).extend(values)
