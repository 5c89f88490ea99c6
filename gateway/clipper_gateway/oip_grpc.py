"""The Open Inference Protocol V2 over gRPC, with gRPC's own health service: an application is a model of the protocol.

    metadata --> caller --> message, in time and in bounds --> method --> response --> log, metrics
     400 431    401 429              408 400 413               Refusal

Rules of this file:
- A message is read only after its metadata says who asks, and within `BODY_S`; its answer is taken within `STALLED_S`.
  gRPC waits for the message of a unary method first, and without end, and keeps its answer as long: so methods are
  registered as streams, which are the same on the wire.
- A message is unpacked here, where its bound is known: gRPC would make a gigabyte of a kilobyte.
- Metadata that decides something stands once in a call: two proxies would each believe another one.
- An error that is no `ClipperError` is a defect: logged with its traceback, answered by INTERNAL without words of it.

Source: Open Inference Protocol, "GRPC"; gRPC, "GRPC Health Checking Protocol".
"""

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2 as health
from grpc_reflection.v1alpha._async import ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from open_inference.grpc import protocol as oip

from clipper_agents.settings.sections import GatewaySection
from clipper_gateway import tensors
from clipper_gateway.access import Access
from clipper_gateway.callers import MOST_CONNECTIONS, NOBODY
from clipper_gateway.calls import Calls
from clipper_gateway.errors import Refusal, logged_refusal
from clipper_gateway.http_protocol import BODY_S, STALLED_S
from clipper_gateway.inference import Inference, check_outputs
from clipper_gateway.request_log import RequestLog
from clipper_gateway.served_call import CLIENT_GONE, ServedCall, check_single
from clipper_gateway.server_spans import UNTRACED, ServerSpans
from clipper_stream.errors import InvalidSetting, shown

NOT_FOUND = 404

SERVICE, HEALTH_SERVICE = "inference.GRPCInferenceService", "grpc.health.v1.Health"
REFLECTION_SERVICES = tuple(f"grpc.reflection.{version}.ServerReflection" for version in ("v1", "v1alpha"))
METADATA_BYTES = 16 * 1024
WATCH_S = 0.5
"""How late a change of health may be told."""
DETAILS_CHARACTERS = 512
"""Of an error: clients take 8 KiB of metadata, in which a character may be 12 bytes."""
MOST_FIELDS = 1_000
"""Of a message and its tensors: more than these, of two bytes each, are two million objects once they are parsed."""
GZIP = b"\x1f\x8b"
"""What no message begins with: a field of this number has no such type."""

_OPTIONS = (
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES),
    ("grpc.compression_enabled_algorithms_bitset", 0b101),  # none, and gzip
    ("grpc.per_message_decompression", 0),
    ("grpc.max_concurrent_streams", 1_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.max_connection_age_ms", 1_800_000),  # a client that takes no answer has its calls for so long
    ("grpc.max_connection_age_grace_ms", 120_000),
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


@dataclass(slots=True, kw_only=True)
class GrpcCall(ServedCall):
    """A call as methods see it; its `context` is gRPC's."""

    context: Any


Method: TypeAlias = Callable[[Any, GrpcCall], Awaitable[Any]]


class GrpcServer:
    """Serves calls over gRPC, on the loop that starts it; a message must be here within `message_s`."""

    def __init__(
        self,
        calls: Calls,
        access: Access,
        reasons: Callable[[], list[str]],
        log: RequestLog,
        spans: ServerSpans = UNTRACED,
    ) -> None:
        self._calls, self._access, self._reasons, self._log = calls, access, reasons, log
        self._spans, self._inference = spans, Inference(calls)
        self._server: Any = None
        self._reflection = ReflectionServicer([SERVICE, HEALTH_SERVICE, *REFLECTION_SERVICES])
        self._most_bytes, self.message_s, self._is_ending = 0, BODY_S, asyncio.Event()

    async def start(self, of: GatewaySection, *, max_calls: int = MOST_CONNECTIONS) -> int:
        """Serve, and return the port; one gateway on a port that others have fails, of several none does."""
        self._most_bytes, address, port = of.max_body_bytes, of.address, of.grpc_port
        own = {"grpc.max_receive_message_length": of.max_body_bytes, "grpc.so_reuseport": int(of.processes > 1)}
        own["grpc.max_allowed_incoming_connections"] = max_calls
        server = grpc.aio.server(options=[*_OPTIONS, *own.items()], maximum_concurrent_rpcs=max_calls)
        server.add_generic_rpc_handlers(self._handlers())
        where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        try:
            credentials = of.tls_certfile and of.tls_keyfile and _credentials(of.tls_certfile, of.tls_keyfile)
            bound: int = server.add_secure_port(where, credentials) if credentials else server.add_insecure_port(where)
        except (OSError, RuntimeError) as error:
            what = f"the gateway cannot serve gRPC at {where}: {str(error).partition(';')[0]}"
            raise InvalidSetting(f"{what}; set gateway.grpc_port, or give a certificate and its key") from error
        await server.start()
        self._server = server
        return bound

    async def stop(self, grace_s: float) -> None:
        """Take no further call, and end those that still run after `grace_s` seconds."""
        self._is_ending.set()
        if self._server is not None:
            await self._server.stop(grace_s)

    def _handlers(self) -> list[Any]:
        of, checked = self._handler, health.HealthCheckRequest
        of_inference = {
            "ModelInfer": of("ModelInfer", oip.ModelInferRequest, self._infer),
            "ModelMetadata": of("ModelMetadata", oip.ModelMetadataRequest, self._model_metadata),
            "ModelReady": of("ModelReady", oip.ModelReadyRequest, self._model_ready),
            "ServerMetadata": of("ServerMetadata", oip.ServerMetadataRequest, self._server_metadata),
            "ServerLive": of("ServerLive", oip.ServerLiveRequest, self._live, public=True),
            "ServerReady": of("ServerReady", oip.ServerReadyRequest, self._ready, public=True),
        }
        watched = {"Check": self._check, "Watch": self._watch}
        of_health = {name: of(name, checked, method, public=True) for name, method in watched.items()}
        reflected = {"ServerReflectionInfo": of("Reflect", ServerReflectionRequest, self._reflect, public=True)}
        services = {SERVICE: of_inference, HEALTH_SERVICE: of_health, **dict.fromkeys(REFLECTION_SERVICES, reflected)}
        return [grpc.method_handlers_generic_handler(*service) for service in services.items()]

    # --- any call ---------------------------------------------------------------------------------------------------
    def _handler(self, name: str, request: Any, method: Method, *, public: bool = False) -> Any:
        spans = UNTRACED if public else self._spans
        about = {"rpc.system": "grpc", "rpc.service": SERVICE, "rpc.method": name}

        async def serve(_: Any, context: Any) -> None:
            shares, metadata = self._access.shares, context.invocation_metadata()
            headers = dict(metadata)
            peer = shares.address_of(_connected(context.peer()), headers.get("x-forwarded-for"))
            caller = replace(NOBODY, address=peer)
            call = GrpcCall(route=name, headers=headers, peer=peer, caller=caller, context=context)
            trailing = (("x-request-id", call.request_id),)
            try:
                try:
                    if not public:
                        check_single(metadata)
                        call.caller = await self._access.identify(call)
                    with spans.serving(call, f"{SERVICE}/{name}", about):
                        async with shares.bodies.turn(call.caller.holder, shares.unstated_bytes) as held:
                            raw = await self._raw_message(context)
                            held.settle(len(raw))
                            response = await method(_message(request, raw), call)
                        call.status = 200
                    context.set_trailing_metadata(trailing)
                    call.status = CLIENT_GONE
                    if response is not None:
                        await self._send(response, call)
                    call.status = 200
                    return
                except grpc.aio.BaseError:
                    call.status = CLIENT_GONE  # or the server stops
                    raise
                except Exception as error:  # noqa: BLE001 - answered by 500
                    refusal = logged_refusal(error, call.request_id)
                call.status, details = refusal.status, str(refusal)[:DETAILS_CHARACTERS]
                await context.abort(refusal.grpc_code, details, (*trailing, *_trailing(refusal)))
            finally:
                self._log.write(call)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _send(self, response: Any, call: GrpcCall) -> None:
        """Give an answer to a client, who takes it in time or does without it."""
        content = response.SerializeToString()
        with self._access.shares.unread.held(call.caller.holder, len(content)):
            try:
                async with asyncio.timeout(STALLED_S):
                    await call.context.write(content)
            except TimeoutError as error:
                raise Refusal(408, f"the answer was not taken within {STALLED_S:g} s") from error

    async def _raw_message(self, context: Any) -> bytes:
        try:
            async with asyncio.timeout(self.message_s):
                raw = await context.read()
        except TimeoutError as error:
            raise Refusal(408, f"the message was not here within {self.message_s:g} s") from error
        if isinstance(raw, bytes) and raw.startswith(GZIP):
            raw = _unpacked(raw, self._most_bytes)
        if not isinstance(raw, bytes):  # the end of the stream, which is too large a message's as well
            what = f"no message came, or one of more than {self._most_bytes} bytes"
            raise Refusal(413, f"{what}: send at most so many, and more rows in further requests")
        return raw

    # --- methods ----------------------------------------------------------------------------------------------------
    async def _infer(self, request: Any, call: GrpcCall) -> Any:
        call.application = request.model_name
        manifest = self._inference.manifest(call.caller, request.model_name, request.model_version)
        self._calls.admit(manifest.name, call.caller)
        pairs = request.parameters.items()
        parameters = {key: getattr(one, one.WhichOneof("parameter_choice") or "", None) for key, one in pairs}
        call.timeout_s = call.context.time_remaining()
        answered, output = await self._inference.infer(call, manifest, _input(request), parameters)
        response = oip.ModelInferResponse(model_name=manifest.name, model_version=str(manifest.revision), id=request.id)
        for key, value in answered.items():
            setattr(response.parameters[key], _PARAMETERS[type(value)], value)
        _add_output(response, output, is_raw=bool(request.raw_input_contents))
        return response

    async def _model_metadata(self, request: Any, call: GrpcCall) -> Any:
        call.application, tensor = request.name, oip.ModelMetadataResponse.TensorMetadata
        found: dict[str, Any] = {**self._inference.metadata(call.caller, request.name, request.version)}
        for side in ("inputs", "outputs"):
            found[side] = [tensor(**one) for one in found[side]]
        return oip.ModelMetadataResponse(**found)

    async def _model_ready(self, request: Any, call: GrpcCall) -> Any:
        call.application = request.name
        try:
            return oip.ModelReadyResponse(ready=self._inference.is_ready(call.caller, request.name, request.version))
        except Refusal as refusal:
            if refusal.status != NOT_FOUND:
                raise
        return oip.ModelReadyResponse(ready=False)

    async def _server_metadata(self, _: Any, __: GrpcCall) -> Any:
        return oip.ServerMetadataResponse(name="clipper-stream", version=version("clipper-stream"))

    async def _live(self, _: Any, __: GrpcCall) -> Any:
        return oip.ServerLiveResponse(live=True)

    async def _ready(self, _: Any, __: GrpcCall) -> Any:
        return oip.ServerReadyResponse(ready=not self._reasons())

    async def _reflect(self, request: Any, call: GrpcCall) -> None:
        async def requests() -> AsyncIterator[Any]:
            yield request
            while isinstance(raw := await call.context.read(), bytes):
                yield _message(ServerReflectionRequest, raw)

        with self._access.shares.watches.held(call.caller.holder):
            reflected: Any = self._reflection.ServerReflectionInfo(requests(), None)
            async for described in reflected:
                await self._send(described, call)

    # --- health -----------------------------------------------------------------------------------------------------
    async def _check(self, request: Any, _: GrpcCall) -> Any:
        found = self._health(request.service)
        if found.status == health.HealthCheckResponse.SERVICE_UNKNOWN:
            raise Refusal(404, f"there is no service {shown(request.service)}: ask for {SERVICE}, or for none")
        return found

    async def _watch(self, request: Any, call: GrpcCall) -> None:
        told = None
        with self._access.shares.watches.held(call.caller.holder):
            while not self._is_ending.is_set():
                if (found := self._health(request.service)) != told:
                    await self._send(found, call)
                    told = found
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(WATCH_S):
                        await self._is_ending.wait()

    def _health(self, service: str) -> Any:
        states = health.HealthCheckResponse
        if service not in {"", SERVICE}:
            return states(status=states.SERVICE_UNKNOWN)
        serves = not self._is_ending.is_set() and not self._reasons()
        return states(status=states.SERVING if serves else states.NOT_SERVING)


def _connected(peer: str) -> str:
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


def _unpacked(packed: bytes, most_bytes: int) -> bytes | None:
    unpacking = zlib.decompressobj(wbits=31)
    try:
        found = unpacking.decompress(packed, most_bytes + 1)
    except zlib.error as error:
        raise Refusal(400, f"the message is no gzip: {error}") from error
    return found if len(found) <= most_bytes else None


def _message(request: Any, raw: bytes) -> Any:
    check_fields(raw)
    try:
        return request.FromString(raw)
    except DecodeError as error:
        raise Refusal(400, f"the message is no {request.DESCRIPTOR.name}: see the protocol's file") from error


def check_fields(raw: bytes) -> None:
    """Raise a `Refusal` when a message and its tensors have more than `MOST_FIELDS` fields; others are not parsed."""
    parts, fields = [(memoryview(raw), True)], 0
    while parts:
        part, is_whole = parts.pop()
        at = 0
        while at < len(part) and fields <= MOST_FIELDS:
            tag, at = _varint(part, at)
            size, start = _varint(part, at) if tag & 7 in {0, 2} else ({1: 8, 5: 4}.get(tag & 7, 0), at)
            at = start if tag & 7 == 0 else start + size
            fields += 1
            if is_whole and tag == oip.ModelInferRequest.INPUTS_FIELD_NUMBER << 3 | 2:
                parts.append((part[start:at], False))
    if fields > MOST_FIELDS:
        raise Refusal(413, f"the message has more than {MOST_FIELDS} fields: give one tensor, and fewer parameters")


def _credentials(certfile: str, keyfile: str) -> Any:
    """Return credentials whose files are read again for each connection; while that fails, those of before count."""

    def read() -> Any:
        pair = Path(keyfile).read_bytes(), Path(certfile).read_bytes()
        return grpc.ssl_server_certificate_configuration([pair])

    def renewed() -> Any:
        with contextlib.suppress(OSError):
            return read()

    return grpc.dynamic_ssl_server_credentials(read(), renewed)


def _varint(part: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    for at in range(at, min(at + 10, len(part))):  # noqa: B020, PLR1704 - from here on
        value |= (part[at] & 127) << shift
        shift += 7
        if part[at] < 128:  # noqa: PLR2004 - the highest bit
            break
    return value, at + 1


def _trailing(refusal: Refusal) -> list[tuple[str, str]]:
    given = {**refusal.headers, "query-id": refusal.query_id, "reason": refusal.reason}
    return [(name, text) for name, text in given.items() if text is not None and text.isascii() and text.isprintable()]


def _input(request: Any) -> tensors.Tensor:
    inputs, raw = request.inputs, request.raw_input_contents
    if len(inputs) != 1 or len(raw) > 1:
        raise Refusal(400, f"{len(inputs)} inputs and {len(raw)} raw_input_contents: give one tensor, rows first")
    check_outputs(output.name for output in request.outputs)
    name, datatype, contents = inputs[0].name, inputs[0].datatype, inputs[0].contents
    shape = [*inputs[0].shape[: tensors.MOST_DIMENSIONS + 1]]
    if not raw:
        values = getattr(contents, _CONTENTS.get(datatype, "fp32_contents"))
        if len(values) > tensors.MOST_VALUES:
            what = f"the tensor has {len(values)} values"
            raise Refusal(413, f"{what}: give at most {tensors.MOST_VALUES}, or raw_input_contents")
        return tensors.tensor_of_json(name, datatype, shape, [*values])
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
        values = [each.encode() if isinstance(each, str) else each for each in tensor.data]
        getattr(output.contents, _CONTENTS[tensor.datatype]).extend(values)
