"""A console in a real browser without a Kafka: the invented deployment of `builders.status`, to which a test does harm."""

import asyncio
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from builders.status import NOW_S
from starlette.routing import Router
from unit.gateway.console.rig import has_read
from unit.gateway.rig import KeptLog, settings_of

from clipper_agents.settings.sections import GatewaySection
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
        """Make everything as it was at first."""
        has_read(self.view)
        self.view._statuses.clear()
        self.view._status = None


@contextmanager
def invented(folder: Path) -> Iterator[Invented]:
    """A console whose view is of one moment, and of which a second lasts a fraction of one."""
    settings = settings_of(folder, GatewaySection())
    console = Console(settings, Access.from_settings(settings.section), Pipeline(settings, bool), KeptLog())
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
