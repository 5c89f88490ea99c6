"""`clipper-stream gateway`: HTTP and gRPC in front of the topics, as `up` starts it or on another machine."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents.cli.deployment import DeploymentContext, with_deployment, with_logs
from clipper_agents.cli.extras import require_extra
from clipper_agents.cli.worker import EndsWithStdin

if TYPE_CHECKING:
    from clipper_agents.observability.logging import LogOptions


@with_deployment
@with_logs
def gateway(
    deployment: DeploymentContext,
    logs: "LogOptions",
    instance: Annotated[str, typer.Option(metavar="NAME", help="Its name in logs.")] = "gateway",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="As --set gateway.insecure=true: others may call without a key.")
    ] = False,
    ends_with_stdin: EndsWithStdin = False,
) -> None:
    """Serve HTTP and gRPC in front of the topics until Ctrl-C or SIGTERM; the end waits for open calls.

    Prints one line, `ready role=gateway instance=NAME http=URL grpc=HOST:PORT metrics=PORT console=URL`, when it
    serves. It also serves while no Kafka answers, and then says so at `/readyz`.
    """
    from clipper_agents.supervisor.process import end_with_stdin
    from clipper_agents.supervisor.workers import GATEWAY_MODULES

    require_extra("gateway", *GATEWAY_MODULES)
    logs.configure(os.environ)
    if ends_with_stdin:
        end_with_stdin()
    assignments = (*deployment.assignments, *(["gateway.insecure=true"] if insecure else []))
    deployment = replace(deployment, assignments=assignments)
    from clipper_gateway.server import run

    settings = deployment.settings
    run(settings.worker(settings.gateway, instance, deployment.kafka))
