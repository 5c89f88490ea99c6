"""Options that say what a model is, of commands that load one on this machine."""

import json
from typing import Annotated, Any

import typer

Runtime = Annotated[str | None, typer.Option(help="As in a manifest. Absent: by the form of the target.")]
Dtype = Annotated[str | None, typer.Option(help="Of a row, as in a manifest's input. Absent: float32.")]
Shape = Annotated[str | None, typer.Option(metavar="N[,N...]", help="Of a numeric row, as 64 or 28,28.")]
Parameters = Annotated[
    str | None, typer.Option(metavar="JSON", help='As in a manifest, as {"output": "probabilities"}.')
]


def shape_of(text: str | None) -> list[int] | None:
    """Parse `--shape`.

    >>> shape_of("[28, 28]"), shape_of(None)
    ([28, 28], None)

    Raises:
        BadParameter: one of them is no number.
    """
    if text is None:
        return None
    try:
        return [int(part) for part in text.strip("[]() ").split(",") if part.strip()]
    except ValueError as error:
        raise typer.BadParameter(f"--shape {text}: write numbers with commas between, for example 28,28") from error


def parameters_of(text: str | None) -> dict[str, Any] | None:
    """Parse `--parameters`.

    >>> parameters_of('{"threads": 2}')
    {'threads': 2}

    Raises:
        BadParameter: it is none.
    """
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"--parameters {text}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f'--parameters {text}: write an object, as {{"threads": 2}}')
    return found
