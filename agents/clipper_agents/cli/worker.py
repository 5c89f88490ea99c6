"""`clipper-stream worker`: one router, host or steward, or all hosts, as `up` starts them or on another machine."""

import asyncio
import os
import socket
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents.cli.deployment import DeploymentContext, with_deployment, with_logs

if TYPE_CHECKING:
    from clipper_agents.observability.logging import LogOptions
    from clipper_agents.observability.metrics import ProcessMetrics
    from clipper_agents.settings.sections import HostSection, RouterSection, StewardSection
    from clipper_topics.manifests import ModelManifest

worker = typer.Typer(
    name="worker",
    no_args_is_help=True,
    help="Run one router, host or steward, or all hosts; it prints one `ready` line when it serves, SIGTERM ends it.",
)

Instance = Annotated[
    str,
    typer.Option(metavar="NAME", help="Unique and the same at each start: a restart takes its partitions back."),
]
EndsWithStdin = Annotated[
    bool,
    typer.Option("--ends-with-stdin", hidden=True, help="End when standard input ends, as a supervisor's child."),
]


@worker.command(epilog="Example: clipper-stream worker router --instance router-a --config clipper.toml")
@with_deployment
@with_logs
def router(
    deployment: DeploymentContext,
    logs: "LogOptions",
    instance: Instance,
    ends_with_stdin: EndsWithStdin = False,
) -> None:
    """Run a router: it reads queries, chooses models, answers and learns."""
    from clipper_agents.observability.metrics import RouterMetrics

    section, metrics = deployment.settings.router, RouterMetrics()
    if (port := _start(deployment, section, metrics, logs, ends_with_stdin)) is not None:
        from clipper_agents.router.app import run

        run(deployment.settings.worker(section, instance, deployment.kafka), metrics, port)


@worker.command(epilog="Example: clipper-stream worker host svm:2 --instance svm-a --config clipper.toml")
@with_deployment
@with_logs
def host(
    deployment: DeploymentContext,
    logs: "LogOptions",
    model: Annotated[str, typer.Argument(metavar="NAME:VERSION", help="The model version to serve.")],
    instance: Instance,
    ends_with_stdin: EndsWithStdin = False,
) -> None:
    """Run a host of one model version: of the configuration if it has one, else as published by `apply`."""
    from clipper_agents.observability.metrics import ProcessMetrics

    section, metrics = deployment.settings.host, ProcessMetrics("host")
    if (port := _start(deployment, section, metrics, logs, ends_with_stdin)) is not None:
        declared = {each.ref: each for each in deployment.settings.models}
        manifest = declared.get(model) or _published(deployment, model)
        from clipper_agents.host.app import run

        run(deployment.settings.worker(section, instance, deployment.kafka), manifest, metrics, port)


@worker.command(epilog="Example: clipper-stream worker hosts --config clipper.toml")
@with_deployment
@with_logs
def hosts(
    deployment: DeploymentContext,
    logs: "LogOptions",
    instance: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of this machine, the same at each start; absent: its host name."),
    ] = None,
) -> None:
    """Run hosts of every version that is deployed, now and later, together with all machines that do so."""
    from clipper_agents.cli.up import serve
    from clipper_agents.supervisor.deployment import Deployment

    _prepare(logs)
    deployment.settings.connection(os.environ)  # without an address it would start a Kafka of its own
    asyncio.run(serve(Deployment(deployment.settings, machine=instance or socket.gethostname(), logs=logs)))


@worker.command(epilog="Example: clipper-stream worker steward --instance steward --config clipper.toml")
@with_deployment
@with_logs
def steward(
    deployment: DeploymentContext,
    logs: "LogOptions",
    instance: Instance = "steward",
    ends_with_stdin: EndsWithStdin = False,
) -> None:
    """Run the steward: it compares versions by their feedback, and steps up, promotes, aborts and retires them."""
    from clipper_agents.observability.metrics import StewardMetrics

    section, metrics = deployment.settings.steward, StewardMetrics()
    if (port := _start(deployment, section, metrics, logs, ends_with_stdin)) is not None:
        from clipper_agents.rollout.worker import run

        run(deployment.settings.worker(section, instance, deployment.kafka), metrics, port)


def _start(
    deployment: DeploymentContext,
    section: "RouterSection | HostSection | StewardSection",
    metrics: "ProcessMetrics",
    logs: "LogOptions",
    ends_with_stdin: bool,
) -> int | None:
    from clipper_agents.kafka.startup_check import wait_for_access
    from clipper_agents.observability.probes import ProbeServer
    from clipper_agents.supervisor.process import end_with_stdin

    _prepare(logs)
    if ends_with_stdin:
        end_with_stdin()
    port = ProbeServer(metrics.registry, metrics.health).start(section.metrics_port, section.metrics_address)
    return port if asyncio.run(wait_for_access(deployment.kafka, metrics.health)) else None


def _prepare(logs: "LogOptions") -> None:
    logs.configure(os.environ)
    find_models_here()


def find_models_here() -> None:
    """Let modules in the working directory be imported, behind all that is installed: they may not stand for those."""
    if os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path has text
        sys.path.append(os.getcwd())  # noqa: PTH109 - the same


def _published(deployment: DeploymentContext, ref: str) -> "ModelManifest":
    from clipper_stream.errors import UnknownName

    found = deployment.control_state().manifests.models
    if ref not in found:
        raise UnknownName(f"model {ref!r} is neither configured nor published: {', '.join(sorted(found)) or 'none'} is")
    return found[ref]
