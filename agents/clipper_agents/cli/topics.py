"""`clipper-stream topics`: create the topics of a deployment, or list them."""

import asyncio

import typer

from clipper_agents.cli.deployment import DeploymentContext, with_deployment

topics = typer.Typer(name="topics", no_args_is_help=True, help="Create or list the topics of a deployment.")


@topics.command(epilog="Example: clipper-stream topics create --config clipper.toml")
@with_deployment
def create(deployment: DeploymentContext) -> None:
    """Create the topics that are missing, also those of the configuration's models; can be repeated."""
    report = deployment.ensure_topics(deployment.settings.models)
    for what in ("created", "grown", "existing"):
        for name in getattr(report, what):
            print(f"{what} {name}")


@topics.command("list", epilog="Example: clipper-stream topics list --bootstrap localhost:9092")
@with_deployment
def list_topics(deployment: DeploymentContext) -> None:
    """Print the name and the partitions of each topic of the deployment."""
    from clipper_agents.kafka.topics import existing_topics

    counts = asyncio.run(existing_topics(deployment.kafka, deployment.prefix))
    for name, partitions in sorted(counts.items()):
        print(f"{name} {partitions}")
