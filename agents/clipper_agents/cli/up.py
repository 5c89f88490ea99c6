"""`clipper-stream up`: everything that a configuration says, on this machine."""

import asyncio
import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipper_agents import exits
from clipper_agents.cli.deployment import DEFAULT_CONFIG, DeploymentContext, with_deployment, with_logs
from clipper_agents.cli.options import Dtype, Shape, shape_of
from clipper_agents.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from clipper_agents.observability.logging import LogOptions
    from clipper_agents.settings import Settings
    from clipper_agents.settings.sections import KafkaSection
    from clipper_agents.supervisor.deployment import Deployment

Apply = Annotated[bool, typer.Option("--apply", help="Publish the configuration also over what is live.")]


@with_deployment
@with_logs
def up(
    deployment: DeploymentContext,
    logs: "LogOptions",
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="Serve this alone: a model file, or package.module:attribute."),
    ] = None,
    *,
    dtype: Dtype = None,
    shape: Shape = None,
    apply: Apply = False,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Do not load the models here first.")] = False,
) -> None:
    """Start broker (unless there is an address), routers, model hosts and gateway, until Ctrl-C or SIGTERM.

    What runs is declared in the configuration, clipper.toml unless another is named. A model that is named here instead
    is the only one of an application that has the name of its file or attribute, and no deadline.
    Prints one line, `ready bootstrap=HOST:PORT gateway=URL console=URL`, when a query sent now will be answered,
    without the fields of what there is not. Logs go to standard error.
    Every model is loaded on this machine first: nothing starts, and nothing is published, unless all of them load.
    Publishes what the configuration adds; what differs from it is live and stays, and the difference is logged.
    The end waits for what is open, and says for how long at most; a second Ctrl-C does not. Of two in one folder the
    second is refused, unless it has another kafka.prefix.
    """
    from clipper_agents.cli.model_target import check_loads_here
    from clipper_agents.settings.local_deployment import recorded
    from clipper_agents.supervisor.deployment import Deployment

    logs.configure(os.environ)
    config = deployment.config or (DEFAULT_CONFIG if model is None else None)
    settings = replace(deployment, config=config, starts_kafka=True).settings
    if model is not None:
        settings = _with_model_alone(settings, model, {"dtype": dtype, "shape": shape_of(shape)})
    with recorded(settings.kafka.prefix) as tell:
        if not unchecked:
            check_loads_here(settings.models, settings.files)
        asyncio.run(serve(Deployment(settings, overwrite=apply, logs=logs), tell))


def _with_model_alone(settings: "Settings", target: str, row: dict[str, Any]) -> "Settings":
    import msgspec

    from clipper_agents.cli.model_target import alone, manifest_of, name_of, with_fitted_row

    name = name_of(target)
    model = with_fitted_row(manifest_of(f"{name}:1", {"uri": target, **row}), settings.files)
    say(f"application {name}: ask it with `clipper-stream predict {name} INPUT_JSON` in this folder", stderr=True)
    return msgspec.structs.replace(settings, models=[model], applications=[alone(model)])


async def serve(deployment: "Deployment", tell: "Callable[[KafkaSection], None]" = lambda _: None) -> None:
    """Start it, say and `tell` when it serves, and end it at a signal; at a second Ctrl-C kill what is left."""
    ending, starting = asyncio.Event(), asyncio.create_task(deployment.start())

    def end() -> None:
        if not ending.is_set():
            starting.cancel()
        ending.set()

    exits.end_on_signals(end, deployment.waits_for, deployment.supervisor.kill)
    try:
        with suppress(asyncio.CancelledError):
            await starting
        if not ending.is_set():
            tell(deployment.settings.kafka)
            urls = {"gateway": deployment.url("http"), "console": deployment.url("console")}
            fields = "".join(f" {name}={url}" for name, url in urls.items() if url)
            say(f"ready bootstrap={deployment.connection.bootstrap}{fields}")
            await ending.wait()
    finally:
        await deployment.stop()
