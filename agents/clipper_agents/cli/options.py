"""Options that several commands take, and how their texts are read."""

import json
import re
import time
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    import msgspec

    from clipper_agents.replay.span import Span

T = TypeVar("T", bound="msgspec.Struct")

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="Configuration: settings, models, applications.")
]
Bootstrap = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Kafka; before KAFKA_BOOTSTRAP_SERVERS and the configuration; absent: of the `up` in this folder.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Any setting, as router.processes=2, before its variable CLIPPER_ROUTER_PROCESSES; repeatable.",
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(metavar="LEVEL", help="debug, info, warning or error; before CLIPPER_LOG_LEVEL, default info."),
]
LogFormat = Annotated[
    str | None, typer.Option(metavar="FORMAT", help="text or json; before CLIPPER_LOG_FORMAT, default text.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON, for machines.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the history.")]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who does it; absent: this user.")]
Revision = Annotated[
    int | None,
    typer.Option("--revision", metavar="N", min=0, help="The revision that you saw: refused when it is another."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would change, and change nothing.")]
ApplicationName = Annotated[str, typer.Argument(metavar="APPLICATION", help="Name of the application.")]
Ref = Annotated[str, typer.Argument(metavar="NAME:VERSION", help="The version.")]

# --- a model on this machine -----------------------------------------------------------------------------------------
Runtime = Annotated[str | None, typer.Option(help="As in a manifest. Absent: by the form of the target.")]
Dtype = Annotated[str | None, typer.Option(help="Of a row. Absent: the application's, or float32.")]
Shape = Annotated[
    str | None, typer.Option(metavar="N[,N...]", help="Of a row, as 64 or 28,28. Absent: the application's, if any.")
]
Parameters = Annotated[
    str | None, typer.Option(metavar="JSON", help='As in a manifest, as {"output": "probabilities"}.')
]

# --- a part of the logs ----------------------------------------------------------------------------------------------
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Decisions from here on: 30m, 2h, 7d ago, or 2026-01-31T12:00:00Z; else all."),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Up to here; absent: up to now.")]
Horizon = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="Feedback counts so long after its prediction; absent: as for the routers."),
]
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def require_extra(extra: str, *modules: str) -> None:
    """Check that what an optional extra of the package brings is installed, before a command begins."""
    from clipper_stream.errors import InvalidSetting, install_command

    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise InvalidSetting(f"this command needs {', '.join(missing)}: {install_command(extra)}")


def fields_of(texts: list[str] | None, option: str, example: str) -> dict[str, str]:
    """Parse KEY=VALUE, repeated."""
    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{option} {text}: write {example}")
        found[name.strip()] = value
    return found


def json_of(text: str, example: str) -> Any:
    """Return the value that a text is in JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no JSON ({error}): write for example {example}") from error


def json_or_text(text: str) -> Any:
    """Return a value as JSON says it; what is no JSON is text.

    >>> json_or_text("200"), json_or_text("absolute")
    (200, 'absolute')
    """
    try:
        return json.loads(text)
    except ValueError:
        return text


def manifest_from(content: dict[str, Any], record: type[T], what: str) -> T:
    """Return the manifest that plain values describe."""
    import msgspec

    from clipper_agents.settings.error_messages import explained
    from clipper_stream.errors import InvalidSetting

    try:
        return msgspec.convert(content, record)
    except ValueError as error:
        raise InvalidSetting(f"{what}: {explained(str(error), content, record)}") from error


def shape_of(text: str | None) -> list[int] | None:
    """Parse `--shape`.

    >>> shape_of("[28, 28]"), shape_of(None)
    ([28, 28], None)
    """
    if text is None:
        return None
    try:
        return [int(part) for part in text.strip("[]() ").split(",") if part.strip()]
    except ValueError as error:
        raise typer.BadParameter(f"--shape {text}: write numbers with commas between, for example 28,28") from error


def parameters_of(text: str | None) -> dict[str, Any] | None:
    """Parse `--parameters`."""
    if text is None:
        return None
    found = json_of(text, '{"threads": 2}')
    if not isinstance(found, dict):
        raise typer.BadParameter(f'--parameters {text}: write an object, as {{"threads": 2}}')
    return found


def seconds_of(text: str) -> int | None:
    """Parse a duration; None when it is none.

    >>> seconds_of("2h"), seconds_of("2 hours")
    (7200, None)
    """
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    return None if found is None else int(found[1]) * _UNITS_S[found[2]]


def since_ms(text: str, now_s: float, option: str = "--since") -> int:
    """A time as milliseconds since the epoch: so long ago, or a date; without a zone it is that of this machine.

    >>> since_ms("2h", 7_200.0), since_ms("1970-01-01T00:01:00+00:00", 0.0)
    (0, 60000)
    """
    ago_s = seconds_of(text)
    if ago_s is not None:
        return round((now_s - ago_s) * 1000)
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError) as wrong:
        raise typer.BadParameter(f"{option} {text}: write 30m, 2h, 7d, or a date as 2026-01-31T12:00:00") from wrong


def span_from(
    since: str | None, until: str | None, horizon: str | None = None, default_horizon_s: float = 0.0
) -> "Span":
    """The part of the logs that the options say."""
    from clipper_agents.replay.span import Span

    now_s = time.time()
    horizon_s = default_horizon_s if horizon is None else seconds_of(horizon)
    if horizon_s is None:
        raise typer.BadParameter(f"--horizon {horizon}: write 90s, 30m, 2h or 7d")
    return Span(
        since_ms=None if since is None else since_ms(since.removeprefix("-"), now_s),
        until_ms=None if until is None else since_ms(until.removeprefix("-"), now_s, option="--until"),
        horizon_s=float(horizon_s),
    )
