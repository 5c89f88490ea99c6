"""A gateway as a process, with its servers, console, keys and shares, over a Kafka that is invented.

`python attacked_gateway.py FOLDER` prints `ready PORT GRPC_PORT`, and ends with its standard input.
"""

import asyncio
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from unit.gateway.rig import settings_of

from clipper_agents.observability.metrics import ProcessMetrics
from clipper_agents.settings.sections import GatewaySection
from clipper_agents.status.query_history import LoggedQuery, QueryHistory
from clipper_gateway.pipeline import Pipeline
from clipper_gateway.server import Gateway
from clipper_stream.client.client import AskedQuery
from clipper_stream.client.client_records import prepare_query
from clipper_topics.codec import MSGPACK
from clipper_topics.manifests import ApplicationManifest
from clipper_topics.prediction import Prediction

ANSWER = "a" * 245 * 1024
SEARCH_S = 8.0


class InventedKafka(Pipeline):
    """Answers what it is asked by a large text, `hang` never; finds queries whose ids begin with `known` at once."""

    async def run(self):
        self.client = self.history = self
        self.partitions, self._is_open = 4, True
        self.deployed.control.caught_up.set()
        applications = {"digits": ApplicationManifest(name="digits", models=["svm:1"])}
        self.deployed._state = SimpleNamespace(manifests=SimpleNamespace(applications=applications, models={}))
        await asyncio.Event().wait()

    async def ask(self, query, *, timeout_s, key, headers):
        record = prepare_query(query, self.partitions, MSGPACK, key)
        await asyncio.sleep(timeout_s if query.input == "hang" else 0.002)
        sent = asyncio.get_running_loop().create_future()
        sent.set_result(SimpleNamespace(offset=0))
        output = ANSWER if query.input == "large" else 3
        return AskedQuery(
            Prediction(query_id=record.query_id, application=query.application, output=output, query_offset=0),
            record,
            sent,
        )

    async def read(self, query_id, application, partitions, *, since_ms):
        if query_id.startswith("known"):
            found = Prediction(query_id=query_id, application=application, output=3)
            return QueryHistory(query=LoggedQuery(0, 1, 1), prediction=found)
        until_s = time.monotonic() + SEARCH_S
        while time.monotonic() < until_s:
            await asyncio.sleep(0.001)
            sum(range(5_000))  # a slice of a search
        return QueryHistory()


async def main(folder):
    section = GatewaySection(keys_file=str(folder / "keys.json"), grpc_port=0, max_in_flight=100)
    gateway = Gateway(settings_of(folder / "console", section), ProcessMetrics("gateway"))
    gateway.pipeline.__class__ = InventedKafka
    gateway.console._view.is_read = True  # of topics without a record
    ready, ending = asyncio.get_running_loop().create_future(), asyncio.Event()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2_048)
        serving = asyncio.ensure_future(gateway.serve(listener, ready, ending))
        print("ready", listener.getsockname()[1], await ready, flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.read)
        ending.set()
        await serving


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
