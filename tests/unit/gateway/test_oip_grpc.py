import asyncio
import gzip
import json
import sys

import grpc
import msgspec
import pytest
import trustme
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from open_inference.grpc import protocol as oip
from open_inference.grpc.service import GRPCInferenceServiceStub
from unit.gateway.rig import refused
from unit.gateway.wires import ROW, GrpcWire, Sent

from clipper_agents.settings.sections import GatewaySection
from clipper_gateway import oip_grpc
from clipper_gateway.callers import Shares
from clipper_gateway.errors import Refusal
from clipper_gateway.oip_grpc import METADATA_BYTES, SERVICE
from clipper_stream.client import BrokerUnavailable, PredictionTimeout
from clipper_stream.errors import InvalidSetting

pytestmark = pytest.mark.usefixtures("one_loop")

EXHAUSTED, UNIMPLEMENTED = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNIMPLEMENTED
SYMBOL = ServerReflectionRequest(file_containing_symbol=SERVICE)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def wire():
    async with GrpcWire() as wire:
        yield wire


async def ended_by(call, code):
    """A call is refused before the server's own code sees it."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    assert failed.value.code() is code


# --- metadata -------------------------------------------------------------------------------------------------------
async def test_trace_and_request_id_go_into_the_record_and_come_back(wire):
    sent = wire.inferred(ROW, metadata=(("traceparent", TRACE), ("x-request-id", "order-7")))
    await wire.called(sent)
    _, call = wire.calls.asked[0]
    assert call.record_headers == [("traceparent", TRACE.encode()), ("correlation-id", b"order-7")]
    assert dict(await sent.trailing_metadata())["x-request-id"] == "order-7"
    (method, application, status, _, caller, request_id, _) = wire.told
    assert (method, application, status, caller, request_id) == ("ModelInfer", "digits", 200, "no sign-in", "order-7")


async def test_ids_of_another_form_are_left_out_and_replaced(wire):
    await wire.infer(ROW, **{"traceparent": "00-1-2-3", "x-request-id": "a" * 129})
    _, call = wire.calls.asked[0]
    made = wire.told[5]
    assert (call.record_headers, len(made)) == ([("correlation-id", made.encode())], 32)


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "idempotency-key"])
async def test_metadata_that_decides_something_stands_once(wire, name):
    wire.headers = {}
    call = wire.inferred(ROW, metadata=((name, "a"), (name, "b")))
    await refused(wire.called(call), 400, f"header {name} stands twice")


@pytest.mark.parametrize("sent", [Sent([1, 2], "INT64", [0.5, 1.0]), Sent(data=[0.5, float("nan")])])
async def test_typed_contents_are_those_of_the_datatype_and_finite(wire, sent):
    request = oip.ModelInferRequest(model_name="digits")
    tensor = request.inputs.add(name="input", datatype=sent.datatype, shape=sent.shape)
    tensor.contents.fp32_contents.extend(sent.data)
    await refused(wire.called(wire.call("ModelInfer", request)), 400)


# --- how calls fail -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "status", "said", "kept_back"),
    [
        (PredictionTimeout("no answer yet", "order-7"), 504, "no answer came in time", "order-8"),
        (BrokerUnavailable("kafka-1.internal is away"), 503, "try again", "internal"),
        (ZeroDivisionError("secret"), 500, "request-7", "secret"),
        (Refusal(429, "too many wait", retry_after_s=2.0, reason="overloaded"), 429, "^too many wait$", "order-8"),
    ],
)
async def test_an_error_is_told_in_the_words_that_are_for_callers_and_a_defect_is_logged(
    wire, caplog, error, status, said, kept_back
):
    wire.calls.fails = error
    found = await refused(wire.infer(ROW, **{"x-request-id": "request-7"}), status, said)
    assert kept_back not in str(found)
    assert found.headers.get("query-id") == ("order-7" if status == 504 else None)
    if status == 429:
        assert (found.headers["retry-after"], found.headers["reason"]) == ("2", "overloaded")
    logged = caplog.text + str([vars(record) for record in caplog.records])
    if status == 500:
        assert "request_id=request-7" in logged
        assert "ZeroDivisionError" in logged
    else:
        assert (kept_back in logged) == (status == 503)


async def test_text_that_metadata_cannot_hold_leaves_the_error_as_it_is(wire):
    wire.calls.fails = Refusal(504, "ü" * 10_000, query_id="bestellung ü\n")
    found = await refused(wire.infer(ROW), 504)
    assert ({*str(found)}, "query-id" in found.headers) == ({"ü"}, False)


async def test_a_client_that_gives_up_ends_its_call(wire):
    wire.calls.let.clear()
    call = wire.inferred(ROW)
    await wire.calls.asked_once.wait()
    call.cancel()
    await wire.calls.cancelled.wait()
    assert (await wire.ended())[:3] == ("ModelInfer", "digits", 499)


async def test_the_deadline_of_a_client_is_that_of_its_query(wire):
    for options in ({"timeout": 30}, {"timeout": 30, "parameters": {"deadline_ms": 5.0}}, {}):
        await wire.called(wire.inferred(ROW, **options))
    (short, own, none) = wire.calls.asked
    assert 0 < short[0].deadline_ms < short[1].timeout_s * 1000 <= 30_100, "gRPC may send it rounded up to a tenth"
    assert own[0].deadline_ms == 5
    assert (none[0].deadline_ms, none[1].timeout_s) == (None, None)


# --- bounds ---------------------------------------------------------------------------------------------------------
async def test_a_message_beyond_the_bound_is_refused_and_logged(wire):
    await refused(wire.infer(Sent([10_000, 2], data=[0.5] * 20_000)), 413)
    await wire.infer(ROW)


async def test_what_grpc_itself_refuses_reaches_no_call(wire):
    await ended_by(wire.inferred(ROW, compression=grpc.Compression.Deflate), UNIMPLEMENTED)
    for flood in ((("x-flood", "a" * METADATA_BYTES),), tuple((f"x-{n}", "a") for n in range(2_000))):
        await ended_by(wire.inferred(ROW, metadata=flood), EXHAUSTED)
    await ended_by(wire.channel.unary_unary(f"/{SERVICE}/ModelStreamInfer")(b""), UNIMPLEMENTED)
    await wire.inferred(ROW, metadata=(("x-large", "a" * (METADATA_BYTES // 2)),))
    assert len(wire.calls.asked) == 1


@pytest.mark.parametrize("rows", [1, 2_000])
async def test_a_message_may_be_packed_by_gzip(wire, rows):
    await wire.called(wire.inferred(Sent([rows, 2], data=[0.5] * 2 * rows), compression=grpc.Compression.Gzip))
    assert len(wire.calls.query.inputs or [0]) == rows


async def test_a_packed_message_is_bounded_as_it_is_unpacked(wire):
    """A kilobyte of gzip may hold a megabyte."""
    packed = gzip.compress(oip.ModelInferRequest(model_name="a" * 2**24).SerializeToString())
    assert len(packed) < 65_536
    for sent, status in ((packed, 413), (packed[:50] + b"x" * 50, 400)):
        call = wire.channel.unary_unary(f"/{SERVICE}/ModelInfer")(sent, metadata=(("x-api-key", "all"),))
        await refused(wire.called(call), status)


async def test_bytes_that_are_no_message_are_refused(wire):
    call = wire.channel.unary_unary(f"/{SERVICE}/ModelInfer")(b"\xff\xff\xff", metadata=(("x-api-key", "all"),))
    await refused(wire.called(call), 400, "no ModelInferRequest")


async def test_a_call_whose_message_never_comes_ends(wire):
    wire.server.message_s = 0.05
    call = wire.channel.stream_unary(f"/{SERVICE}/ModelInfer")(metadata=(("x-api-key", "all"),))
    await refused(wire.called(call), 408)


async def test_a_log_line_has_the_peer_and_the_one_behind_a_trusted_proxy(wire):
    await wire.infer(ROW)
    assert wire.told[6] == "127.0.0.1"
    wire.access.shares = Shares(proxies=["127.0.0.1"])
    await wire.infer(ROW, **{"x-forwarded-for": "192.0.2.7"})
    assert wire.told[6] == "192.0.2.7"


async def test_a_client_may_ask_what_is_served(wire):
    stub = ServerReflectionStub(wire.channel)
    call = stub.ServerReflectionInfo(iter([ServerReflectionRequest(list_services=""), SYMBOL]))
    listed, described = [answer async for answer in call]
    names = [one.name for one in listed.list_services_response.service]
    assert {SERVICE, "grpc.health.v1.Health"} <= {*names}
    assert described.file_descriptor_response.file_descriptor_proto


async def test_an_answer_that_is_not_taken_is_given_up(wire, monkeypatch):
    """A client of one connection had 8,000 answers kept."""
    monkeypatch.setattr(oip_grpc, "STALLED_S", 0.05)
    wire.calls.answer = {"output": "a" * 2**20, "outputs": msgspec.UNSET}
    calls = [wire.inferred(ROW) for _ in range(8)]
    statuses = sorted([(await wire.ended())[2] for _ in calls])
    assert statuses[-1] in {200, 408}
    for call in calls:
        call.cancel()


async def test_calls_and_connections_beyond_the_bound_are_refused_until_one_has_ended(one_loop):
    async with GrpcWire(max_calls=1) as wire:
        wire.calls.let.clear()
        waits = asyncio.ensure_future(wire.infer(ROW))
        await wire.calls.asked_once.wait()
        await ended_by(wire.call("ServerLive", oip.ServerLiveRequest()), EXHAUSTED)
        reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        assert await reader.read() == b""
        writer.close()
        wire.calls.let.set()
        await waits


# --- health ---------------------------------------------------------------------------------------------------------
async def test_health_follows_the_gateways_readiness_and_needs_no_key(wire):
    wire.headers = {}
    for service in ("", SERVICE):
        for reasons, status in (([], "SERVING"), (["no broker answers"], "NOT_SERVING")):
            wire.reasons = reasons
            found = await wire.called(wire.health.Check(HealthCheckRequest(service=service)))
            assert HealthCheckResponse.ServingStatus.Name(found.status) == status
    await refused(wire.called(wire.health.Check(HealthCheckRequest(service="nosuch"))), 404)


async def test_what_is_not_ready_is_told_without_an_error(wire):
    wire.reasons = ["no broker answers"]
    for method, model in (("ServerReady", ""), ("ModelReady", "texts")):
        assert await wire.ask(method, model) == {"ready": False}


async def test_a_watch_is_told_of_changes_and_ends_with_the_server(wire):
    watch = wire.health.Watch(HealthCheckRequest())
    assert (await watch.read()).status == HealthCheckResponse.SERVING
    wire.reasons = ["no broker answers"]
    assert (await watch.read()).status == HealthCheckResponse.NOT_SERVING
    unknown = wire.health.Watch(HealthCheckRequest(service="nosuch"))
    assert (await unknown.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
    await wire.server.stop(60)
    assert await watch.read() is grpc.aio.EOF


async def test_watches_beyond_the_bound_are_refused(wire):
    watches = [wire.health.Watch(HealthCheckRequest()) for _ in range(wire.access.shares.watches.of_caller)]
    await asyncio.gather(*(watch.read() for watch in watches))
    await ended_by(wire.health.Watch(HealthCheckRequest()).read(), EXHAUSTED)
    watches[0].cancel()
    while (await wire.ended())[2] == 429:
        """The refused one may be told of before."""
    assert (await wire.health.Watch(HealthCheckRequest()).read()).status == HealthCheckResponse.SERVING


# --- start and end --------------------------------------------------------------------------------------------------
async def test_open_calls_are_answered_while_the_server_ends(wire):
    wire.calls.let.clear()
    waits = asyncio.ensure_future(wire.infer(ROW))
    await wire.calls.asked_once.wait()
    watch = wire.health.Watch(HealthCheckRequest())
    assert (await watch.read()).status == HealthCheckResponse.SERVING
    ending = asyncio.ensure_future(wire.server.stop(60))
    while await watch.read() is not grpc.aio.EOF:
        """It may say first that it serves no more."""
    wire.calls.let.set()
    assert (await waits)["model_name"] == "digits"
    await ending


async def test_a_port_that_is_taken_says_which_setting_to_change(wire):
    with pytest.raises(InvalidSetting, match=rf"127.0.0.1:{wire.port}: .*gateway.grpc_port"):
        await GrpcWire().server.start(GatewaySection(grpc_port=wire.port))


async def test_tls_needs_a_certificate_that_can_be_read(one_loop, tmp_path):
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    tls = GrpcWire(tls_certfile=str(certificate), tls_keyfile=str(key))
    with pytest.raises(InvalidSetting, match="No such file"):
        await tls.__aenter__()
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    async with tls:
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        async with grpc.aio.secure_channel(f"localhost:{tls.port}", credentials) as channel:
            assert (await GRPCInferenceServiceStub(channel).ServerLive(oip.ServerLiveRequest())).live
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        async with grpc.aio.secure_channel(f"localhost:{tls.port}", credentials) as channel:
            renewed = GRPCInferenceServiceStub(channel).ServerLive(oip.ServerLiveRequest(), timeout=10)
            assert (await renewed).live


TRITON = """
import json, sys, numpy, tritonclient.grpc as triton
client, headers = triton.InferenceServerClient(sys.argv[1]), {"x-api-key": "all"}
numbers, texts = triton.InferInput("input", [2, 2], "FP32"), triton.InferInput("input", [1], "BYTES")
numbers.set_data_from_numpy(numpy.asarray([[0.5, 1.0], [0.25, 2.0]], numpy.float32))
texts.set_data_from_numpy(numpy.asarray(["schön".encode()], object))
parameters = {"context": "ada", "deadline_ms": 50}
rows = client.infer("digits", [numbers], parameters=parameters, headers=headers).as_numpy("output").tolist()
text = client.infer("texts", [texts], headers=headers).as_numpy("output")[0].decode()
try:
    client.infer("nosuch", [numbers], headers=headers)
except triton.InferenceServerException as error:
    print(json.dumps([client.is_model_ready("digits", headers=headers), rows, text, error.status()]))
"""


async def test_tritons_client_reads_and_asks(wire):
    # a process of its own: its messages have the names of the protocol's, and one process can have them once
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", TRITON, f"127.0.0.1:{wire.port}", stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert json.loads(said) == [True, [[0.5, 1.0], [0.25, 2.0]], "schön", "StatusCode.NOT_FOUND"]
    query, _ = wire.calls.asked[0]
    assert (query.context, query.deadline_ms) == ("ada", 50)
