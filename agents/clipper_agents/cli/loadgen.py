"""`clipper-stream loadgen`: load on a running pipeline, and a report."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.terminal import progress, say

if TYPE_CHECKING:
    from clipper_loadgen import LoadPlan, LoadReport
    from clipper_loadgen.run import LoadRun

UPDATE_S = 0.05


@with_deployment
def loadgen(
    deployment: DeploymentContext,
    application: Annotated[str, typer.Option(help="Application to ask.")],
    *,
    rate: Annotated[float, typer.Option(min=0.1, help="Queries a second, sent whatever the answers do.")] = 200.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of measured load.")] = 20.0,
    warmup_seconds: Annotated[float, typer.Option(min=0, help="Seconds of load before that, not counted.")] = 0.0,
    arrivals: Annotated[Literal["poisson", "constant"], typer.Option(help="When queries are sent.")] = "poisson",
    saturate: Annotated[
        bool, typer.Option("--saturate", help="Send as fast as --outstanding allows instead of at a rate.")
    ] = False,
    queries: Annotated[int, typer.Option(min=1, help="With --saturate: number of queries.")] = 50_000,
    outstanding: Annotated[int, typer.Option(min=1, help="With --saturate: most queries without an answer.")] = 5_000,
    inputs: Annotated[
        str | None, typer.Option(help="Rows (.npy), or with labels (.jsonl). Absent: random, by the manifest.")
    ] = None,
    contexts: Annotated[int, typer.Option(min=0, help="Number of contexts; 0: none.")] = 0,
    repeats: Annotated[float, typer.Option(min=0, max=1, help="Share of queries that repeat a recent input.")] = 0.0,
    feedback_delay_ms: Annotated[
        float | None, typer.Option(min=0, help="Mean delay of feedback after its answer. Absent: no feedback.")
    ] = None,
    encoding: Annotated[Literal["json", "msgpack"], typer.Option(help="Of queries and feedback.")] = "json",
    seed: Annotated[int, typer.Option(min=0, help="Seeds every draw.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report here too; - prints it only.")
    ] = None,
) -> None:
    """Send queries to an application and report latency, throughput, default outputs and losses.

    Latency counts from the time at which a query was meant to be sent, so a stall counts for every query it delays.
    """
    from clipper_agents.control.changes import existing
    from clipper_loadgen import LoadPlan
    from clipper_loadgen.datasets import load_dataset

    random = None if inputs else existing(deployment.control_state().manifests, application).input
    plan = LoadPlan(
        application,
        mode="saturation" if saturate else "rate",
        rate_per_s=rate,
        duration_s=seconds,
        warmup_s=0.0 if saturate else warmup_seconds,
        arrivals=arrivals,
        queries=queries,
        outstanding=outstanding,
        dataset=random or load_dataset(str(inputs)),
        contexts=contexts,
        repeat_ratio=repeats,
        feedback_delay_s=None if feedback_delay_ms is None else feedback_delay_ms / 1e3,
        encoding=encoding,
        seed=seed,
    )
    _show(_run(plan, deployment), json_file)


def _run(plan: "LoadPlan", deployment: DeploymentContext) -> "LoadReport":
    import uvloop

    from clipper_loadgen import run_load

    kafka = deployment.kafka
    with progress(f"{plan.application}, {plan.mode}") as update:

        async def follow(run: "LoadRun") -> None:
            ledger = run.ledger
            while True:
                counts = f"{ledger.sent_count:,} sent, {ledger.answered_count:,} answered"
                update(completed=ledger.answered_count, total=len(ledger), counts=counts)
                await asyncio.sleep(UPDATE_S)

        # uvloop leaves more of the machine for the pipeline, but with TLS it takes 30 s, its limit for a shutdown, to
        # close a connection with a fetch under way
        runner = asyncio.run if kafka.security_protocol.endswith("SSL") else uvloop.run
        return runner(run_load(plan, kafka, deployment.catalogue, follow))


def _show(report: "LoadReport", json_file: Path | None) -> None:
    import msgspec

    encoded = msgspec.json.format(msgspec.json.encode(report))
    if json_file == Path("-"):
        say(*encoded.decode().split("\n"))
    else:
        say(*report.lines())
        if json_file is not None:
            json_file.write_bytes(encoded + b"\n")
    for warning in report.warnings():
        say(f"warning: {warning}", stderr=True)
