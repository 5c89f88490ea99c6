"""`clipper-stream predict` and `feedback`: one query, one feedback, by hand."""

import asyncio
import json
import sys
from typing import Annotated, Any

import typer

from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.options import json_or_text
from clipper_agents.cli.terminal import say

Context = Annotated[str | None, typer.Option(metavar="TEXT", help="Whose weights to use, for example a user.")]


@with_deployment
def predict(
    deployment: DeploymentContext,
    application: Annotated[str, typer.Argument(help="Name of the application.")],
    input_json: Annotated[str, typer.Argument(metavar="INPUT_JSON", help="One row as JSON; - reads standard input.")],
    context: Context = None,
    deadline_ms: Annotated[
        int | None, typer.Option(min=1, metavar="MS", help="Answer within so many milliseconds.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME:VERSION", help="Ask this model instead of the policy's; repeatable."),
    ] = None,
    features: Annotated[
        list[float] | None,
        typer.Option("--feature", metavar="NUMBER", help="A number that a policy like lin_ucb chooses by; repeatable."),
    ] = None,
    timeout_s: Annotated[float, typer.Option(min=0.1, metavar="S", help="Wait so many seconds at most.")] = 10.0,
) -> None:
    """Ask one question and print the answer as a line of JSON."""
    from clipper_stream.client.client import Client
    from clipper_stream.client.client_records import QueryOptions

    row = _parsed(sys.stdin.read() if input_json == "-" else input_json)

    async def ask() -> Any:
        async with Client(deployment.kafka, prefix=deployment.prefix) as client:
            options = QueryOptions(context=context, deadline_ms=deadline_ms, models=models, features=features)
            return await client.predict(application, row, timeout_s=timeout_s, **options)

    say(_shown(asyncio.run(ask())))


@with_deployment
def feedback(
    deployment: DeploymentContext,
    query_id: Annotated[str, typer.Argument(help="The query_id of the answer.")],
    label: Annotated[
        str | None, typer.Option(metavar="JSON", help="The true output; what is no JSON counts as text.")
    ] = None,
    loss: Annotated[float | None, typer.Option(min=0, max=1, help="Loss of the answer.")] = None,
    reward: Annotated[float | None, typer.Option(min=0, max=1, help="Reward of the answer.")] = None,
    context: Context = None,
) -> None:
    """Say what was true about a query: exactly one of --label, --loss and --reward."""
    from clipper_stream.client.client import Client

    given = {"loss": loss, "reward": reward, "label": None if label is None else json_or_text(label)}
    truth: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if len(truth) != 1:
        raise typer.BadParameter("give exactly one of --label, --loss and --reward")

    async def tell() -> None:
        async with Client(deployment.kafka, prefix=deployment.prefix) as client:
            await client.feedback(query_id, context=context, **truth)

    asyncio.run(tell())


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no JSON ({error}); write for example '[1, 2, 3]' or '\"text\"'"
        ) from error


def _shown(answer: Any) -> str:
    import msgspec

    content = msgspec.to_builtins(answer)
    hidden = {"key", "partition"}
    return json.dumps({name: value for name, value in content.items() if value is not None and name not in hidden})
