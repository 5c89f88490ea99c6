"""`clipper-stream kafka`: does this cluster do what a deployment needs of it?"""

import asyncio

import typer

from clipper_agents import exits
from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.options import Json
from clipper_agents.cli.terminal import TextTable, console, print_json

kafka = typer.Typer(name="kafka", no_args_is_help=True, help="Check whether a Kafka cluster can be used.")


@kafka.callback()
def _group() -> None:
    """Check whether a Kafka cluster can be used."""


@kafka.command(epilog="Example: clipper-stream kafka check --bootstrap kafka-1:9092")
@with_deployment
def check(deployment: DeploymentContext, as_json: Json = False) -> None:
    """Try everything that a deployment asks of Kafka, and say of each whether it is fine, degraded or missing.

    Nothing stays: what is written is in a topic PREFIX.check, which is deleted. Exit code 3 if something is missing.
    """
    from clipper_agents.status.kafka_check import check_kafka

    rows = asyncio.run(check_kafka(deployment.kafka, deployment.catalogue, deployment.settings.topic_creation))
    if as_json:
        print_json(*(row._asdict() for row in rows))
    else:
        console().print(TextTable(("needed", "state", "what was found"), rows))
    if any(row.state == "missing" for row in rows):
        raise typer.Exit(exits.SETUP)
