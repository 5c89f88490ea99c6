"""`clipper-stream predict` and `feedback`: one query, one feedback, by hand."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from clipper_agents import exits
from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.options import json_of, json_or_text, require_extra
from clipper_agents.cli.terminal import say
from clipper_stream.errors import ClipperError

if TYPE_CHECKING:
    from clipper_stream.answers import Answer
    from clipper_topics.feedback import FeedbackAck

T = TypeVar("T")
CODES = {"duplicate": exits.REPEATED, "orphan": exits.ORPHAN, "invalid": exits.REFUSED}
API_KEY = "CLIPPER_API_KEY"
"""Environment variable of the gateway's key: other users of a machine see arguments."""
Context = Annotated[str | None, typer.Option(metavar="TEXT", help="Whose weights to use, for example a user.")]
Http = Annotated[
    str | None,
    typer.Option("--http", metavar="URL", help=f"Through this gateway, not Kafka; its key, if any, is in {API_KEY}."),
]


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
    http: Http = None,
) -> None:
    """Ask one question and print the answer as a line of JSON.

    Ends with code 5 when the query is at fault: an unknown application or model, or an input of another shape.
    """
    from clipper_topics.prediction import REFUSALS

    row = json_of(sys.stdin.read() if input_json == "-" else input_json, "'[1, 2, 3]' or '\"text\"'")
    options: dict[str, Any] = {"context": context, "deadline_ms": deadline_ms, "models": models, "features": features}
    options["timeout_s"] = timeout_s

    answer: Answer = _call(deployment, http, lambda client: client.predict(application, row, **options))
    say(_shown(answer))
    if answer.reason in REFUSALS:
        say(f"error: {answer.explanation}", stderr=True)
        raise typer.Exit(exits.REFUSED)


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
    wait_s: Annotated[
        float | None, typer.Option("--wait", metavar="SECONDS", min=0.1, help="Wait, and print what became of it.")
    ] = None,
    http: Http = None,
) -> None:
    """Say what was true about a query: exactly one of --label, --loss and --reward.

    With --wait it prints applied or unlearned (code 0), invalid (5), orphan, for no such query (6; known after some six
    seconds), or duplicate, when an earlier feedback counts (7). Ends with code 1 when no router has read it in time.
    """
    given = {"loss": loss, "reward": reward, "label": None if label is None else json_or_text(label)}
    truth: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if len(truth) != 1:
        raise typer.BadParameter("give exactly one of --label, --loss and --reward")
    if wait_s is None:
        _call(deployment, http, lambda client: client.feedback(query_id, context=context, **truth))
        return
    if http is not None:
        raise typer.BadParameter(f"--wait needs Kafka: leave out --http, or look at /v1/queries/{query_id} there")
    from clipper_topics.feedback import Feedback

    said = Feedback(query_id=query_id, context=context, ack=True, **truth)
    found: FeedbackAck = _call(
        deployment, None, lambda client: _ack(deployment, query_id, partial(client.give, said), wait_s)
    )
    say(found.outcome)
    if found.explanation:
        say(f"error: {found.explanation}", stderr=True)
    raise typer.Exit(CODES.get(found.outcome, exits.OK))


def _call(deployment: DeploymentContext, url: str | None, call: Callable[[Any], Awaitable[T]]) -> T:
    """The result of a call through Kafka, or a gateway; what that refuses ends with the code of a query at fault."""

    async def through(opened: AbstractAsyncContextManager[Any]) -> T:
        async with opened as client:
            return await call(client)

    if url is None:
        from clipper_stream.client.client import Client

        return asyncio.run(through(Client(deployment.kafka, prefix=deployment.catalogue.prefix, raise_refusals=False)))
    if deployment.bootstrap:
        raise typer.BadParameter("--http asks a gateway, --bootstrap asks Kafka: give one of them")
    require_extra("http", "httpx")
    from clipper_stream.http import HttpClient, RequestRefused

    gateway = HttpClient(url, api_key=os.environ.get(API_KEY) or None, raise_refusals=False)
    try:
        return asyncio.run(through(gateway))
    except RequestRefused as error:
        say(f"error: {error}", stderr=True)
        raise typer.Exit(exits.REFUSED) from None


async def _ack(
    deployment: DeploymentContext, query_id: str, send: Callable[[], Awaitable[tuple[int, int]]], wait_s: float
) -> "FeedbackAck":
    from clipper_agents.status.query_history import acknowledged

    try:
        async with asyncio.timeout(wait_s):
            return await acknowledged(deployment.kafka, deployment.catalogue, query_id, send)
    except TimeoutError as error:
        raise ClipperError(f"no router has read the feedback within {wait_s:g} s: does one run?") from error


def _shown(answer: "Answer") -> str:
    import msgspec

    content = msgspec.to_builtins(answer)
    hidden = {"key", "partition"}
    return json.dumps({name: value for name, value in content.items() if value is not None and name not in hidden})
