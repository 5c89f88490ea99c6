"""`clipper-stream topics`: create the topics of a deployment, or list them."""

import asyncio
import sys

import typer

from clipper_agents.cli.deployment import DeploymentContext, with_deployment

topics = typer.Typer(name="topics", no_args_is_help=True, help="Create or list the topics of a deployment.")


@topics.command(epilog="Example: clipper-stream topics create --config clipper.toml")
@with_deployment
def create(deployment: DeploymentContext) -> None:
    """Create the topics that are missing, also those of the configuration's models; can be repeated."""
    from clipper_agents.kafka.topics import ensure_topics

    report = asyncio.run(
        ensure_topics(
            deployment.kafka,
            deployment.catalogue,
            deployment.settings.models,
            replication_factor=deployment.settings.kafka.replication,
        )
    )
    for what in ("created", "grown", "existing"):
        for name in getattr(report, what):
            print(f"{what} {name}")
    for line in report.advice:
        print(f"warning: {line}", file=sys.stderr)


@topics.command("list", epilog="Example: clipper-stream topics list --bootstrap localhost:9092")
@with_deployment
def list_topics(deployment: DeploymentContext) -> None:
    """Print the name and the partitions of each topic of the deployment."""
    from clipper_agents.kafka.topics import existing_topics

    counts = asyncio.run(existing_topics(deployment.kafka, deployment.prefix))
    for name, partitions in sorted(counts.items()):
        print(f"{name} {partitions}")
