"""A real Prometheus, with the alerts and the board of this folder, on a pipeline that has something to show.

    make observe
    make observe ARGS="--follow data/metrics-targets.json"     # on an `up` that runs already

Without `--follow` it starts a pipeline of its own: two versions of a model of handwritten digits that a policy chooses
from, one on trial beside them and one that is bad and will be aborted. Applications ask over Kafka and over HTTP, and
say what was true. After each minute the better version answers nonsense for half a minute.
"""

import argparse
import asyncio
import hashlib
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

from clipper_agents.broker.properties import free_port
from clipper_agents.demo.data import draw_traffic, load_digits
from clipper_agents.kafka.clients import make_producer
from clipper_stream.client import Client
from clipper_stream.errors import ClipperError
from clipper_stream.http import HttpClient
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from deploy.observe.servers import BOARD, prometheus
from examples.lifecycle.train import train_versions
from examples.shared.operation import PipelineProcess
from examples.shared.traffic import LabelledTraffic

PIPELINE = """
[broker]
data_dir = "data/kafka"

[gateway]
port = {port}
grpc_port = 0

[models]
allowed_locations = ["{folder}"]
allowed_modules = ["clipper_agents.demo.models"]

[[application]]
name = "digits"
input = {{ shape = [64] }}
models = ["digits:1", "digits:2"]
trials = [
    {{ model = "digits:3", stage = "canary", share = 0.1, automatic = true }},
    {{ model = "digits:4", stage = "shadow", share = 0.3 }},
]
policy = {{ name = "exp3", parameters = {{ exploration = 0.2, half_life = 100 }} }}
rollout = {{ least = 40 }}
drift = {{}}
objective_ms = 500
default_output = -1

[[model]]
name = "digits"
version = "1"
runtime = "sklearn"
uri = "{files[1]}"

[[model]]
name = "digits"
version = "2"
uri = "clipper_agents.demo.models:FaultyModel"
parameters = {{ uri = "{files[2]}", sha256 = "{sha256}", flag = "{flag}" }}

[[model]]
name = "digits"
version = "3"
runtime = "sklearn"
uri = "{files[3]}"
colocated = true

[[model]]
name = "digits"
version = "4"
runtime = "sklearn"
uri = "{files[1]}"
colocated = true
"""
HEALTHY_S, BROKEN_S = 60.0, 30.0
ODD_EVERY_S = 2.0
LAST_ANSWERS_S = 2.0
"""At the end, for what was asked already."""
HTTP_RATIO = 0.2
"""Share of the queries that come over HTTP."""


@asynccontextmanager
async def observed_pipeline(rate: float) -> AsyncIterator[Path]:
    """Run the pipeline and its traffic; gives the file of its metrics' addresses."""
    digits = load_digits(seed=0)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="observe-", ignore_cleanup_errors=True)))
        flag, port = folder / "broken", free_port()
        print("training three versions of a model", flush=True)
        files = {int(version): file for version, file in train_versions(digits, folder).items()}
        sha256 = hashlib.sha256(files[2].read_bytes()).hexdigest()
        pipeline = PIPELINE.format(folder=folder, port=port, files=files, sha256=sha256, flag=flag)
        up = stack.enter_context(PipelineProcess(folder, pipeline))
        kafka = KafkaConnection(await asyncio.to_thread(up.wait_ready))
        client = await stack.enter_async_context(Client(kafka.bootstrap))
        http = await stack.enter_async_context(HttpClient(f"http://127.0.0.1:{port}"))
        pictures = draw_traffic(digits, 5_000, seed=1)
        for asking, share in ((client, 1 - HTTP_RATIO), (cast("Client", http), HTTP_RATIO)):
            traffic = LabelledTraffic(asking, "digits", pictures, rate * share)
            await traffic.start()
            stack.push_async_callback(_end_traffic, traffic)
        work = [asyncio.ensure_future(_break_and_repair(flag)), asyncio.ensure_future(_ask_oddly(client, kafka))]
        stack.push_async_callback(_end, work)
        yield folder / "data" / "metrics-targets.json"


async def _end_traffic(traffic: LabelledTraffic) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_ANSWERS_S):
            await traffic.stop()


async def _break_and_repair(flag: Path) -> None:
    while True:
        await asyncio.sleep(HEALTHY_S)
        await asyncio.to_thread(flag.touch)
        await asyncio.sleep(BROKEN_S)
        await asyncio.to_thread(flag.unlink)


async def _ask_oddly(client: Client, kafka: KafkaConnection) -> None:
    """Ask about a picture of three pixels now and then, for default outputs; once, send something unreadable."""
    producer = make_producer(kafka)
    await producer.start()
    try:
        await producer.send_and_wait(Catalogue().queries, b"no query")
    finally:
        await producer.stop()
    while True:
        with suppress(ClipperError):
            await client.predict("digits", [1.0, 2.0, 3.0])
        await asyncio.sleep(ODD_EVERY_S)


async def _end(work: "Sequence[asyncio.Future[Any]]") -> None:
    for task in work:
        task.cancel()
    await asyncio.wait(work)


async def observe(follow: Path | None, rate: float, factor: float) -> None:
    """Run everything until cancelled."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, cast("Any", asyncio.current_task()).cancel)
    async with AsyncExitStack() as stack:
        targets = await stack.enter_async_context(observed_pipeline(rate)) if follow is None else follow
        servers = stack.enter_context(ExitStack())
        folder = Path(servers.enter_context(tempfile.TemporaryDirectory(prefix="prometheus-")))
        url = servers.enter_context(prometheus(folder / "prometheus", targets, factor))
        print(f"targets     {targets}")
        print(f"prometheus  {url}/alerts")
        print(f"grafana     in yours, add the data source {url} and import {BOARD}")
        print("Ctrl-C ends it", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Run it until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="Prometheus, alerts and board on a real pipeline.")
    parser.add_argument("--follow", type=Path, metavar="FILE", help="metrics-targets.json of a pipeline that runs")
    parser.add_argument("--rate", type=float, default=50.0, help="queries a second, without --follow")
    parser.add_argument("--faster", type=float, default=1.0, metavar="N", help="alerts have N times shorter windows")
    options = parser.parse_args()
    if options.follow is not None and not options.follow.exists():
        raise SystemExit(f"error: {options.follow} is not there: `clipper-stream up` keeps it while it runs")
    try:
        asyncio.run(observe(options.follow, options.rate, options.faster))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("ended")


if __name__ == "__main__":
    main()
