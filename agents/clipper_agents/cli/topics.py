"""`clipper-stream topics`: create the topics of a deployment, or list them."""

import asyncio
import os
import sys

import typer

from clipper_agents.cli.options import Bootstrap, ConfigFile, Set, settings_from

topics = typer.Typer(name="topics", no_args_is_help=True, help="Create or list the topics of a deployment.")


@topics.command(epilog="Example: clipper-stream topics create --config clipper.toml")
def create(config: ConfigFile = None, bootstrap: Bootstrap = None, assignments: Set = None) -> None:
    """Create the topics that are missing, also those of the configuration's models; can be repeated."""
    from clipper_agents.kafka.topics import ensure_topics

    settings = settings_from(config, bootstrap, assignments)
    report = asyncio.run(
        ensure_topics(
            settings.connection(os.environ),
            settings.catalogue,
            settings.models,
            replication_factor=settings.kafka.replication,
        )
    )
    for what in ("created", "grown", "existing"):
        for name in getattr(report, what):
            print(f"{what} {name}")
    for line in report.advice:
        print(f"warning: {line}", file=sys.stderr)


@topics.command("list", epilog="Example: clipper-stream topics list --bootstrap localhost:9092")
def list_topics(config: ConfigFile = None, bootstrap: Bootstrap = None, assignments: Set = None) -> None:
    """Print the name and the partitions of each topic of the deployment."""
    from clipper_agents.kafka.topics import existing_topics

    settings = settings_from(config, bootstrap, assignments)
    counts = asyncio.run(existing_topics(settings.connection(os.environ), settings.kafka.prefix))
    for name, partitions in sorted(counts.items()):
        print(f"{name} {partitions}")
