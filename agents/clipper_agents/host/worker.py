"""The process that hosts one model version: `run` until SIGTERM.

start --> model loaded, warm, measured --> joined the group --> `ready` line --> SIGTERM --> drained --> left --> end
             | SetupError                                          | a send failed, a defect: raised, redelivery follows
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from clipper_agents import exits
from clipper_agents.host.building import PreparedModel, make_engine, prepare
from clipper_agents.host.engine import HostEngine
from clipper_agents.host.serving import FrameOrigin, RequestServer
from clipper_agents.observability.exposition import serve_metrics
from clipper_agents.observability.logging import event
from clipper_agents.observability.metrics import HostMetrics
from clipper_agents.settings.workers import HostSettings
from clipper_agents.streaming.app import ClipperApp, make_app

logger = logging.getLogger(__name__)

DRAIN_S = 10.0
"""For the rows that are in the process at SIGTERM; what is left then is read again by another host."""
LAG_EVERY_S = 1.0


def run(settings: HostSettings) -> None:
    """Host the model until SIGTERM or SIGINT.

    Raises:
        SetupError: the model cannot be loaded; the message says what to do.
        Exception: a send failed for good, or a defect; nothing is lost, the next process reads the requests again.
    """
    prepared = prepare(settings.model)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        drained = runner.run(HostProcess(settings, prepared).run())
    if not drained:  # a batch may hang in the model's thread, and the interpreter would wait for it
        event(logger, "not drained", logging.ERROR, model=settings.model.ref, waited_s=DRAIN_S)
        logging.shutdown()
        os._exit(exits.FAILURE)


class HostProcess:
    """A host from its start to its end.

    Args:
        settings: What to host and where.
        prepared: The model.
    """

    def __init__(self, settings: HostSettings, prepared: PreparedModel) -> None:
        self._settings = settings
        self._prepared = prepared
        self._metrics = HostMetrics()
        self._stopping = asyncio.Event()

    async def run(self) -> bool:
        """Serve until SIGTERM; False when a batch, or sending its outputs, did not come to its end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        app = self._make_app()
        engine = self._make_engine(app)
        running = asyncio.create_task(engine.run())
        try:
            await self._serve(app, running)
            return await _drained(engine, running)
        finally:
            await app.stop()

    def _make_app(self) -> ClipperApp:
        settings, model = self._settings, self._settings.model
        group = settings.catalogue.host_group(model.name, model.version)
        return make_app(group, settings.kafka, settings.data_dir, settings.instance)

    def _make_engine(self, app: ClipperApp) -> HostEngine[FrameOrigin]:
        settings, model = self._settings, self._settings.model
        server = RequestServer(app, settings.catalogue, self._metrics)
        engine = make_engine(model, self._prepared, server.send, server.finished, self._metrics)
        topic = app.raw_topic(settings.catalogue.requests(model.name, model.version))

        async def requests(stream: Any) -> None:
            await server.serve(stream, engine)

        app.agent(topic, name="requests")(requests)
        return engine

    async def _serve(self, app: ClipperApp, running: asyncio.Task[None]) -> None:
        """Return on SIGTERM; raise what ended the app or the engine."""
        await app.start()
        reading = asyncio.create_task(self._watch(app))
        stopping = asyncio.create_task(self._stopping.wait())
        ended = asyncio.create_task(app.wait_until_stopped())
        done, _ = await asyncio.wait([running, stopping, ended, reading], return_when=asyncio.FIRST_COMPLETED)
        if app.crash_reason is not None:
            raise app.crash_reason
        for task in done:
            task.result()
        for task in (reading, stopping, ended):
            task.cancel()

    async def _watch(self, app: ClipperApp) -> None:
        """Say that requests are read, once they are; then measure for ever how many are still to be read."""
        await app.inputs_flow.wait()
        self._say_ready()
        while True:
            lags = {(tp.topic, tp.partition): records for tp, records in app.consumer.lag().items()}
            self._metrics.set_consumer_lag(lags)
            await asyncio.sleep(LAG_EVERY_S)

    def _say_ready(self) -> None:
        settings = self._settings
        port = serve_metrics(self._metrics.registry, settings.metrics_port, settings.metrics_address)
        line = f"ready role=host model={settings.model.ref} instance={settings.instance} metrics={port}"
        print(line, flush=True)  # noqa: T201 - the line that a supervisor waits for


async def _drained(engine: HostEngine[FrameOrigin], running: asyncio.Task[None]) -> bool:
    """Wait for the rows in the process; raises what ended the engine before."""
    engine.drain()
    done, _ = await asyncio.wait([running], timeout=DRAIN_S)
    for task in done:
        task.result()
    return bool(done)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - not installed there

    return uvloop.new_event_loop
