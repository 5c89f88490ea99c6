"""A console in a real browser without a Kafka: the deployment of `builders.status`, to which a test does harm."""

import asyncio
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn
from builders.status import CLUSTER, NOW_S, group, learn, prediction, report
from starlette.routing import Router
from unit.gateway.console.rig import has_read
from unit.gateway.rig import KeptLog, settings_of

from clipper_agents.settings.sections import GatewaySection
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_gateway.access import Access
from clipper_gateway.console.follower import LiveView
from clipper_gateway.console.history import FINEST_S, Point, point_of
from clipper_gateway.console.routes import Console
from clipper_gateway.pipeline import Pipeline

TICK_S = 0.2


@dataclass(frozen=True)
class Invented:
    """The URL of the console, and its view, which has `heal` and may be changed."""

    url: str
    view: LiveView

    def heal(self) -> None:
        """Make all well: every host serves, every trial has feedback, and 100 queries were answered in 20 ms each."""
        view = has_read(self.view)
        report(view.facts, "rf:2", "host.rf.2.0", "ready")
        learn(view.facts, 2, {"nn:3": (9.0, 1.0)})
        groups = [group("rf:2", "host.rf.2.0") if one.model == "rf:2" else one for one in CLUSTER.groups]
        view.cluster.newest = replace(CLUSTER, groups=tuple(groups))
        self.answer("svm:1")

    def answer(self, ref: str | None, latency_ms: float = 20.0, **fields: object) -> None:
        """Have the last 100 queries answered by a version, or by the default."""
        self.view.recent = TrafficWindow()
        for number in range(100):
            found = prediction(number, ref, latency_ms)
            for name, value in fields.items():
                setattr(found, name, value)
            self.view.recent.predicted(found, NOW_S - 10 + number / 10, NOW_S)


@contextmanager
def invented(folder: Path) -> Iterator[Invented]:
    """A console whose view is of one moment, and of which a second lasts a fraction of one."""
    settings = settings_of(folder, GatewaySection())
    access = Access.from_settings(settings.section)
    console = Console(settings, access, Pipeline(settings, lambda _: None, access.shares), KeptLog())
    view = console._view
    view._clock = lambda: NOW_S
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Invented(f"http://127.0.0.1:{listener.getsockname()[1]}", view)
        found.heal()
        remember(view)
        app = Router(console.routes(), redirect_slashes=False)
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, ws="none"))

        async def serve() -> None:
            serving = asyncio.create_task(server.serve([listener]))
            while not serving.done():
                view._statuses.clear()
                view.look()
                await asyncio.sleep(TICK_S)
            await console.stop()

        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        try:
            yield found
        finally:
            view.end()
            server.should_exit = True
            thread.join()


def remember(view: LiveView) -> None:
    """Put half an hour of figures into its history: waves, and one answer that took a hundred times as long."""
    status, now_s = view.application("digits"), int(time.time())
    assert status is not None
    for number in range(180):
        wave = 1 + 0.3 * math.sin(number / 9)
        point: Point = {
            ref: {name: value * wave for name, value in figures.items()} for ref, figures in point_of(status).items()
        }
        if number == 120:
            point[""]["p99_ms"] *= 100
        view.history.add(now_s - FINEST_S * (179 - number), {"digits": point})
