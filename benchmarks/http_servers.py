"""How fast is this pipeline beside model servers that a user would pick instead, and for how much CPU?

    python benchmarks/http_servers.py --json results/http_servers.json      # about eight minutes
    python benchmarks/http_servers.py --quick

The same model behind MLServer (batches of a fixed size and wait), BentoML (sized by a regression) and Ray Serve (fixed)
over HTTP, one row a request, and in this pipeline, through Kafka, with the model in the router and in a host. Their
packages go into environments of their own, made on first use. None of the servers chooses, caches, logs or learns.

An open loop at fixed rates, each latency counted from the intended send time; then a closed loop with a fixed number of
queries without an answer, for as long. A missing or wrong answer is late for ever. CPU from /proc, of all processes of
the system.
"""

import argparse
import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from models import INPUTS, digits
from rig.contenders import RIVALS, NotInstalled, rival_python
from rig.http_load import Labels, Request, answering, paced, saturated
from rig.measuring import loaded, rows
from rig.processes import NotServing, cpu_s_by_process, end, on_cpus, tree
from rig.results import Measures, Run, Summary, Target
from rig.session import Session, in_rounds, parsed, report, session, system_options
from rig.systems import SYSTEMS, Place

from clipper_agents.broker.properties import free_port
from clipper_loadgen import LoadPlan

SATURATION = "saturation"
OURS = ("colocated", "separate")
READY_S = 120.0
MEASURES: Measures = {
    "p50 ms": lambda run: run.get("p50_ms"),
    "p99 ms": lambda run: run.get("p99_ms"),
    "answers/s": lambda run: run.get("throughput_per_s"),
    "CPU µs a query": lambda run: run.get("system_cpu_us"),
}
QUICK = {"rounds": 1, "rates": [200], "seconds": 0.5, "warmup": 0.1, "queries": 300, "outstanding": 32}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A model server.

    Attributes:
        package: What its environment has.
        environment: Suffix of that.
        words: After the interpreter, by port.
        path: Of its URL.
        body: A request of one row.
        labels: In a response.
        settings: Environment variables, by port.
    """

    package: str
    environment: str
    words: Callable[[int], Sequence[str]]
    path: str
    body: Callable[[list[float]], Any]
    labels: Labels
    settings: Callable[[int], dict[str, str]] = lambda _: {}


def _v2(row: list[float]) -> dict[str, Any]:
    return {"inputs": [{"name": "predict", "shape": [1, INPUTS], "datatype": "FP32", "data": row}]}


SERVERS = {
    "mlserver": Server(
        package="mlserver",
        environment="-mlserver",
        words=lambda _: ("-c", "from mlserver.cli import main; main()", "start", str(RIVALS / "mlserver_digits")),
        path="v2/models/digits/infer",
        body=_v2,
        labels=lambda response: response["outputs"][0]["data"],
        settings=lambda port: {
            "MLSERVER_HTTP_PORT": str(port),
            "MLSERVER_GRPC_PORT": str(free_port()),
        },
    ),
    "bentoml": Server(
        package="bentoml",
        environment="-bentoml",
        words=lambda port: ("-m", "bentoml", "serve", "bentoml_digits:Digits", "--port", str(port)),
        path="predict",
        body=lambda row: {"rows": [row]},
        labels=list,
        settings=lambda _: {"BENTOML_DO_NOT_TRACK": "True"},
    ),
    "ray-serve": Server(
        package="ray",
        environment="-ray",
        words=lambda port: (str(RIVALS / "ray_digits.py"), str(port)),
        path="predict",
        body=lambda row: {"rows": [row]},
        labels=list,
        settings=lambda _: {"RAY_USAGE_STATS_ENABLED": "0"},
    ),
}


def main() -> None:
    options = arguments()
    with session(options) as here:
        runs = in_rounds(options.systems, options.rounds, lambda name, number: measured(name, number, here, options))
    report(options, "median (least to most)", runs, MEASURES, targets)


def measured(name: str, number: int, here: Session, options: argparse.Namespace) -> Iterator[Run]:
    """Every load on one system, one after the other."""
    place = here.place(f"l{number}-{name}")
    if name in OURS:
        with SYSTEMS[name](place) as roots:
            for load in loads(options):
                yield {"load": load_name(load), **loaded(plan(load, options), place, roots, here.broker)}
        return
    try:
        with serving(SERVERS[name], place, install=options.install) as (url, root):
            for load in loads(options):
                yield {"load": load_name(load), **asyncio.run(asked(SERVERS[name], url, root, load, options))}
    except NotInstalled as error:
        yield {"note": f"did not run: {error}"}


def load_name(rate: float | None) -> str:
    return f"{rate:g}/s" if rate else SATURATION


def loads(options: argparse.Namespace) -> list[float | None]:
    """The rates, and None for saturation."""
    return [*options.rates, None]


def plan(rate: float | None, options: argparse.Namespace) -> LoadPlan:
    """The load on this pipeline."""
    if rate is None:
        inputs = rows(options.queries, seed=1)
        return LoadPlan(
            "digits", mode=SATURATION, queries=options.queries, outstanding=options.outstanding, dataset=inputs
        )
    return LoadPlan(
        "digits",
        rate_per_s=rate,
        duration_s=options.seconds,
        warmup_s=options.warmup,
        arrivals="constant",
        dataset=rows(round(rate * (options.warmup + options.seconds)), seed=round(rate)),
    )


async def asked(server: Server, url: str, root: int, rate: float | None, options: argparse.Namespace) -> dict[str, Any]:
    """The same load over HTTP, after a warm-up."""
    count = options.queries if rate is None else round(rate * options.seconds)
    if rate is not None:
        await paced(url, requests(server, round(rate * options.warmup)), server.labels, rate)
    before = cpu_s_by_process([root])
    if rate is None:
        figures = await saturated(url, requests(server, count), server.labels, options.outstanding, options.seconds)
    else:
        figures = await paced(url, requests(server, count), server.labels, rate)
    spent_s = sum(cpu_s_by_process([root]).values()) - sum(before.values())
    return {**figures, "system_cpu_us": round(spent_s * 1e6 / figures["queries"], 1)}


def requests(server: Server, count: int) -> list[Request]:
    """Requests of one row each, and their labels; the seed is fixed."""
    inputs = np.random.default_rng(count).integers(0, 1_000, (count, INPUTS)) / 1_000.0
    labels = digits(inputs.astype(np.float32)).tolist()
    return [(msgspec.json.encode(server.body(row)), label) for row, label in zip(inputs.tolist(), labels, strict=True)]


@contextmanager
def serving(server: Server, place: Place, *, install: bool) -> Iterator[tuple[str, int]]:
    """URL and root process of a server that answers; ended with the block, and all that it started.

    Raises:
        NotInstalled: its environment could not be made.
        NotServing: it did not answer in time.
    """
    python, port = rival_python(server.package, server.environment, install=install), free_port()
    environ = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    environ |= {"PYTHONPATH": str(RIVALS), **server.settings(port)}
    log_file, url = place.logs / f"{place.catalogue.prefix}.log", f"http://127.0.0.1:{port}/{server.path}"
    with log_file.open("w") as log, on_cpus(place.cpus.system):
        command = [str(python), *server.words(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, text=True, env=environ, start_new_session=True)
    try:
        if not asyncio.run(answering(url, requests(server, 1)[0], server.labels, READY_S)):
            raise NotServing(f"no right answer within {READY_S:.0f} s: {log_file.read_text(errors='replace')[-500:]}")
        yield url, process.pid
    finally:
        descendants = tree(process.pid)
        end(process)
        for pid in descendants:  # Ray's are in process groups of their own
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def targets(found: Summary) -> list[Target]:
    """What is expected of the model in the router, beside each server of the same run."""

    def cpu(name: str) -> float | None:
        return found.get(f"{name}, {SATURATION}", {}).get("CPU µs a query", {}).get("median")

    def ratio(name: str) -> float | None:
        mine, other = cpu("colocated"), cpu(name)
        return round(mine / other, 3) if mine is not None and other else None

    what = "colocated, saturation: CPU a query, x"
    return [
        Target(benchmark="L", what=f"{what} {name}", value=ratio(name), sense="<=", bound=0.5)
        for name in SERVERS
        if cpu(name)
    ]


def arguments() -> argparse.Namespace:
    systems = [*SERVERS, *OURS]
    parser = system_options(__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rates", nargs="+", type=float, default=[200, 1_000], help="queries a second")
    parser.add_argument("--seconds", type=float, default=8.0, help="of measured latency at each rate")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds at the same rate before")
    parser.add_argument("--queries", type=int, default=20_000, help="at saturation")
    parser.add_argument("--outstanding", type=int, default=256, help="queries without an answer, at saturation")
    parser.add_argument("--systems", nargs="+", choices=systems, default=systems)
    parser.add_argument("--no-install", dest="install", action="store_false", help="use servers that are there already")
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
