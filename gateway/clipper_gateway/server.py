"""The gateway as a process: `run` until SIGTERM.

start --> ports are open --> `ready` line --> SIGTERM --> unready --> open calls are answered --> end
    | a port is taken, access for everybody: SetupError      | topics made anew: the process ends, and says why
"""

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Route, Router

from clipper_agents import exits
from clipper_agents.kafka import aiokafka_patches
from clipper_agents.kafka.errors import TopicMadeAnew
from clipper_agents.memory import settle_memory
from clipper_agents.observability.logging import event
from clipper_agents.observability.metrics import ProcessMetrics
from clipper_agents.observability.probes import ProbeServer
from clipper_agents.observability.tracing import start_tracer, stop_tracing
from clipper_agents.settings.load import WorkerSettings
from clipper_agents.settings.sections import GatewaySection
from clipper_gateway.access import Access
from clipper_gateway.api import OwnApi
from clipper_gateway.callers import MOST_CONNECTIONS
from clipper_gateway.calls import Calls
from clipper_gateway.console.routes import Console
from clipper_gateway.http_protocol import UVICORN, BoundedHttpProtocol
from clipper_gateway.oip_grpc import GrpcServer
from clipper_gateway.oip_rest import InferenceEndpoints
from clipper_gateway.pipeline import Pipeline
from clipper_gateway.request_log import RequestLog
from clipper_gateway.rest import Admit, Endpoints
from clipper_gateway.server_spans import ServerSpans
from clipper_stream.errors import InvalidSetting

logger = logging.getLogger(__name__)

IDLE_S = 75
"""Of a connection between two requests: longer than balancers keep theirs."""
BACKLOG = 2_048
RELOAD_S = 10.0
HSTS = b"strict-transport-security", b"max-age=31536000"

DOCUMENT = Path(__file__).with_name("openapi.json")
_MODEL, _VERSION = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"


class _Server(uvicorn.Server):
    """uvicorn without handlers of signals: this process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Gateway:
    """One gateway: an ASGI application and a gRPC server over one pipeline."""

    def __init__(self, settings: WorkerSettings[GatewaySection], metrics: ProcessMetrics) -> None:
        section = self.section = settings.section
        self.access = Access.from_settings(section)
        self.pipeline = Pipeline(settings, metrics.set_broker_reachable, self.access.shares)
        self.calls = Calls(
            self.pipeline, self.access.shares, most_waiting=section.max_in_flight, timeout_s=section.timeout_s
        )
        metrics.gauge("clipper_gateway_in_flight").set_function(lambda: self.calls.waiting)
        self.health = metrics.health
        self.health.serves(self.pipeline.probed)
        self.log = RequestLog(metrics, self.pipeline.deployed.applications)
        lost = metrics.counter("clipper_spans_lost_total")
        self.spans = ServerSpans(start_tracer("gateway", settings.instance, lost))
        headers, origins = [HSTS] if section.tls_certfile else [], section.cors_origins
        endpoints = Endpoints(
            self.access, self.log, section.max_body_bytes, frozenset(origins), headers=headers, spans=self.spans
        )
        own, v2 = OwnApi(self.calls, settings.horizon_s), InferenceEndpoints(self.calls)
        routes = routes_of(endpoints, own, v2, self.calls.admit)
        self.console: Console | None = None
        if section.console:
            self.console = Console(settings, self.access, self.pipeline, self.log, headers)
            routes += self.console.routes()
            metrics.watch_disk(settings.data_dir)
        cors = Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "idempotency-key", "traceparent", "x-api-key"],
            expose_headers=["retry-after", "x-request-id"],
        )
        middleware, unknown = [cors] if origins else [], endpoints.unknown()
        self.app = Router(routes, redirect_slashes=False, default=unknown, middleware=middleware)

    async def serve(self, listener: socket.socket, ready: "asyncio.Future[int]", ending: asyncio.Event) -> None:
        """Serve until `ending`; `ready` gets the port of gRPC once both ports answer."""
        section = self.section

        class OwnProtocol(BoundedHttpProtocol):
            shares = self.access.shares

        config = uvicorn.Config(
            self.app,
            http=OwnProtocol,
            **UVICORN,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=max(1, round(section.drain_s)),
            limit_concurrency=MOST_CONNECTIONS,
            backlog=BACKLOG,
            ssl_certfile=section.tls_certfile,
            ssl_keyfile=section.tls_keyfile,
        )
        config.load()
        server = _Server(config)
        grpc_server = GrpcServer(self.calls, self.access, self.pipeline.probed, self.log, self.spans)
        if self.console:
            self.console.start()
        work: list[asyncio.Future[Any]] = [asyncio.ensure_future(self.pipeline.run())]
        try:
            tls = (section.tls_certfile, section.tls_keyfile) if section.tls_certfile and section.tls_keyfile else None
            grpc_port = await grpc_server.start(section)
            work.append(asyncio.ensure_future(server.serve(sockets=[listener])))
            ready.set_result(grpc_port)
            settle_memory()
            work.append(asyncio.ensure_future(ending.wait()))
            if tls is not None and config.ssl is not None:
                work.append(asyncio.ensure_future(_renew(config.ssl, *tls)))
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self.pipeline.ending.set()
            await asyncio.sleep(self.pipeline.notice_s())
            if self.console:
                await self.console.stop()
            server.should_exit = True
            none_waits = asyncio.ensure_future(self.calls.none_waits.wait())
            work.append(none_waits)
            drained = [none_waits, asyncio.ensure_future(grpc_server.stop(section.drain_s)), *work[1:2]]
            await asyncio.wait(drained, timeout=section.drain_s)
            for task in work:
                task.cancel()
            await asyncio.wait(work)
            if self.access.keys is not None:
                self.access.keys.note_uses()
            self.log.flush()


def routes_of(endpoints: Endpoints, own: OwnApi, v2: InferenceEndpoints, admit: Admit) -> list[Route]:
    """Return the routes, the most frequent ones first, as they are tried in order; anybody may read the document."""
    of, headers = endpoints.route, {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
    document = Response(DOCUMENT.read_bytes(), headers=headers, media_type="application/json")
    return [
        of("/v1/applications/{name}/predict", own.predict, admit=admit),
        of("/v1/feedback", own.feedback),
        of("/v1/queries/{query_id:text}", own.query, method="GET"),
        of("/v1/trials/{name}/{model}/verdict", own.verdict, method="GET POST"),
        of("/v1/applications", own.applications, method="GET"),
        of("/v1/models", own.models, method="GET"),
        of(f"{_MODEL}/infer", v2.infer, admit=admit),
        of(f"{_VERSION}/infer", v2.infer, admit=admit),
        of("/v2/health/live", own.live, method="GET", public=True),
        of("/v2/health/ready", own.ready, method="GET", public=True),
        of(f"{_MODEL}/ready", v2.model_ready, method="GET"),
        of(f"{_VERSION}/ready", v2.model_ready, method="GET"),
        of(_MODEL, v2.model, method="GET"),
        of(_VERSION, v2.model, method="GET"),
        of("/v2", v2.server, method="GET"),
        of("/v2/", v2.server, method="GET"),  # as the protocol's own document has it
        of("/livez", own.live, method="GET", public=True),
        of("/readyz", own.ready, method="GET", public=True),
        Route("/openapi.json", document, methods=["GET"]),
    ]


async def _renew(context: ssl.SSLContext, certfile: str, keyfile: str) -> None:
    """Read the certificate again and again; one that cannot be used leaves that of before."""
    while True:
        await asyncio.sleep(RELOAD_S)
        try:
            for each in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):  # at first where it spoils nothing
                each.load_cert_chain(certfile, keyfile)
        except OSError as error:
            event(logger, "the certificate stays that of before", logging.WARNING, file=certfile, error=error)


def run(settings: WorkerSettings[GatewaySection]) -> None:
    """Serve until SIGTERM or SIGINT; prints `ready role=gateway instance=...`, with its addresses."""
    section = settings.section
    _allow_many_connections()
    aiokafka_patches.install()
    metrics = ProcessMetrics("gateway")
    gateway = Gateway(settings, metrics)
    event(logger, gateway.access.notice())
    with _listener(section) as listener:
        port = ProbeServer(metrics.registry, metrics.health).start(section.metrics_port, section.metrics_address)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_run(gateway, listener, settings.instance, port))
        except TopicMadeAnew as error:
            logger.error("worker cannot go on instance=%s: %s", settings.instance, error)  # noqa: TRY400
            raise SystemExit(exits.CRASHED) from error
        finally:
            stop_tracing()


async def _run(gateway: Gateway, listener: socket.socket, instance: str, metrics_port: int) -> None:
    loop = asyncio.get_running_loop()
    gateway.health.watch_loop()
    ending, ready = asyncio.Event(), loop.create_future()
    exits.end_on_signals(ending.set, lambda: f"open calls are answered, within {gateway.section.drain_s:g} s")
    serving = asyncio.ensure_future(gateway.serve(listener, ready, ending))
    await asyncio.wait([serving, ready], return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        section = gateway.section
        scheme = "https" if section.tls_certfile else "http"
        port = listener.getsockname()[1]
        http = f"{scheme}://{section.address}:{port}"
        # a browser is shown the console by an address of this machine, which "all addresses" is not
        seen_at = "127.0.0.1" if section.address == "0.0.0.0" else section.address  # noqa: S104
        console = f" console={scheme}://{seen_at}:{port}/console" if gateway.console else ""
        print(  # noqa: T201 - a supervisor waits for this line
            f"ready role=gateway instance={instance} http={http} grpc={section.address}:{ready.result()} "
            f"metrics={metrics_port}{console}",
            flush=True,
        )
    await serving
    event(logger, "ended", instance=instance)


def _listener(section: GatewaySection) -> socket.socket:
    family = socket.AF_INET6 if ":" in section.address else socket.AF_INET
    try:
        shared = section.processes > 1
        return socket.create_server((section.address, section.port), family=family, backlog=BACKLOG, reuse_port=shared)
    except OSError as error:
        where, reason = f"{section.address}:{section.port}", (error.strerror or str(error)).partition(" (while")[0]
        raise InvalidSetting(f"the gateway cannot listen at {where}: {reason}; set gateway.port") from error


def _allow_many_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * MOST_CONNECTIONS)), hard))
