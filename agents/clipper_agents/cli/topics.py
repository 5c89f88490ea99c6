"""`clipper-stream topics`: create the topics of a deployment, list them, repair what others did to them."""

import asyncio
from typing import Annotated

import typer

from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.options import Yes
from clipper_agents.cli.terminal import say
from clipper_stream.names import choices

topics = typer.Typer(name="topics", no_args_is_help=True, help="Create, list or repair the topics of a deployment.")

Form = Annotated[str, typer.Option("--format", metavar="FORMAT", help="strimzi, terraform, kafka-topics or acl.")]


@topics.command(epilog="Example: clipper-stream topics create --config clipper.toml")
@with_deployment
def create(deployment: DeploymentContext) -> None:
    """Create the topics that are missing, also those of the configuration's models; can be repeated."""
    report = deployment.ensure_topics(deployment.settings.models)
    for what in ("created", "grown", "existing"):
        for name in getattr(report, what):
            say(f"{what} {name}")


@topics.command("list", epilog="Example: clipper-stream topics list --bootstrap localhost:9092")
@with_deployment
def list_topics(deployment: DeploymentContext) -> None:
    """Print the name and the partitions of each topic of the deployment."""
    from clipper_agents.kafka.topics import existing_topics

    counts = asyncio.run(existing_topics(deployment.kafka, deployment.catalogue.prefix))
    for name, partitions in sorted(counts.items()):
        say(f"{name} {partitions}")


@topics.command(epilog="Example: clipper-stream topics export --format strimzi --config clipper.toml > topics.yaml")
@with_deployment
def export(deployment: DeploymentContext, form: Form) -> None:
    """Print the topics and the rights of each role, for whoever makes them.

    With those of the configuration's models. Set kafka.create_topics to false for commands and workers that make none.
    """
    from clipper_topics.rights import rights_of
    from clipper_topics.topic_export import FORMATS

    if form not in FORMATS:
        raise typer.BadParameter(choices(form, FORMATS), param_hint="--format")
    settings, catalogue = deployment.settings, deployment.catalogue
    hosted = [model for model in settings.models if model.is_hosted]
    requests = [catalogue.requests_topic(model.name, model.version, model.replicas) for model in hosted]
    rights = rights_of(catalogue, [f"{model.name}.{model.version}" for model in hosted])
    bootstrap = settings.kafka.bootstrap or "localhost:9092"
    text = FORMATS[form](catalogue.fixed_topics() + requests, rights, bootstrap, settings.kafka.replication)
    say(*text.splitlines())


@topics.command(epilog="Example: clipper-stream topics renew --yes")
@with_deployment
def renew(deployment: DeploymentContext, yes: Yes = False) -> None:
    """Make the logs anew that refer to one that was deleted and created again; its new records stay.

    What was learned goes with them: keep it by `selection export`, and give it back by `selection restore`.
    """
    from clipper_agents.kafka.topic_ids import read_replaced_logs, renew_logs

    target = deployment.kafka, deployment.catalogue
    replaced = asyncio.run(read_replaced_logs(*target))
    if not replaced:
        say("nothing to renew")
        return
    say(f"made anew by somebody: {', '.join(replaced)}", stderr=True)
    if not yes:
        typer.confirm(f"Delete the other logs of {deployment.catalogue.prefix}, and what was learned?", abort=True)
    for name in asyncio.run(renew_logs(*target, replaced, deployment.settings.topic_creation)):
        say(f"renewed {name}")
