"""`clipper-stream worker`: one router, host or steward, or all hosts, as `up` starts them or on another machine."""

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.options import LogLevel

if TYPE_CHECKING:
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
def router(
    deployment: DeploymentContext,
    instance: Instance,
    log_level: LogLevel = None,
    ends_with_stdin: EndsWithStdin = False,
) -> None:
    """Run a router: it reads queries, chooses models, answers and learns."""
    if _may_start(deployment, log_level, ends_with_stdin):
        from clipper_agents.router.app import run

        run(deployment.settings.router_settings(instance, deployment.kafka))


@worker.command(epilog="Example: clipper-stream worker host svm:2 --instance svm-a --config clipper.toml")
@with_deployment
def host(
    deployment: DeploymentContext,
    model: Annotated[str, typer.Argument(metavar="NAME:VERSION", help="The model version to serve.")],
    instance: Instance,
    log_level: LogLevel = None,
    ends_with_stdin: EndsWithStdin = False,
) -> None:
    """Run a host of one model version: of the configuration if it has one, else as published by `apply`."""
    if _may_start(deployment, log_level, ends_with_stdin):
        declared = {each.ref: each for each in deployment.settings.models}
        manifest = declared.get(model) or _published(deployment, model)
        from clipper_agents.host.app import run

        run(deployment.settings.host_settings(instance, manifest, deployment.kafka))


@worker.command(epilog="Example: clipper-stream worker hosts --config clipper.toml")
@with_deployment
def hosts(deployment: DeploymentContext, log_level: LogLevel = None) -> None:
    """Run the hosts of every version that is deployed, now and later; one such process a deployment."""
    if _may_start(deployment, log_level, ends_with_stdin=False):
        from clipper_agents.cli.up import serve
        from clipper_agents.supervisor.deployment import Deployment

        asyncio.run(serve(Deployment(deployment.settings, hosts_only=True, log_level=log_level)))


@worker.command(epilog="Example: clipper-stream worker steward --instance steward --config clipper.toml")
@with_deployment
def steward(
    deployment: DeploymentContext,
    instance: Instance = "steward",
    log_level: LogLevel = None,
    ends_with_stdin: EndsWithStdin = False,
) -> None:
    """Run the steward: it compares versions by their feedback, and steps up, promotes, aborts and retires them."""
    if _may_start(deployment, log_level, ends_with_stdin):
        from clipper_agents.rollout.worker import run

        run(deployment.settings.steward_settings(instance, deployment.kafka))


def _may_start(deployment: DeploymentContext, log_level: str | None, ends_with_stdin: bool) -> bool:
    """Prepare the process; False when it was told to end while it waited for Kafka."""
    from clipper_agents.kafka.startup_check import wait_for_access
    from clipper_agents.observability.logging import configure_logging
    from clipper_agents.supervisor.process import end_with_stdin

    configure_logging(log_level, os.environ)
    if ends_with_stdin:
        end_with_stdin()
    find_models_here()
    return asyncio.run(wait_for_access(deployment.kafka))


def find_models_here() -> None:
    """Let modules in the working directory be imported, behind all that is installed: they may not stand for those."""
    if os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path has text
        sys.path.append(os.getcwd())  # noqa: PTH109 - the same


def _published(deployment: DeploymentContext, ref: str) -> "ModelManifest":
    from clipper_stream.errors import UnknownName

    found = deployment.control_state().manifests.models
    if ref not in found:
        raise UnknownName(
            f"model {ref!r} is neither configured nor published; published: {', '.join(sorted(found)) or 'none'}"
        )
    return found[ref]
