"""The reference page of the commands, from the commands: `python docs/command_line.py` writes it anew."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from clipper_agents.cli.main import app

PAGE = Path(__file__).resolve().parent / "reference/command-line.md"
SHARED = frozenset({"--config", "--bootstrap", "--set", "--log-level", "--log-format", "--why", "--by", "--help"})
"""Options that are explained once, in the head of the page."""


def reference() -> str:
    """The page, whose head is written by hand."""
    head = PAGE.read_text(encoding="utf-8").partition("\n## `")[0]
    return "\n".join([head, *(part for name, command in commands() for part in _section(name, command))])


def commands(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the words of each command of the program, and the command."""
    root: Any = group or typer.main.get_command(app)
    for name, command in root.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _section(name: str, command: Any) -> Iterator[str]:
    yield f"## `{name}`\n"
    yield inspect.cleandoc(command.help or "").partition("\n\n")[0] + "\n"
    yield f"    {(command.epilog or '').removeprefix('Example: ')}\n"
    options = [text for parameter in command.params if (text := _option(parameter))]
    if options:
        yield f"Takes {', '.join(options)}.\n"


def _option(parameter: Any) -> str:
    """The names of an option or argument with its default; empty where the head of the page explains it."""
    names = [*parameter.opts, *parameter.secondary_opts]
    if not SHARED.isdisjoint(names) or getattr(parameter, "hidden", False):
        return ""
    if not any(name.startswith("-") for name in names):
        names = [(parameter.metavar or parameter.name or "").strip("[].").upper()]
    return f"{'/'.join(f'`{name}`' for name in sorted(names, key=len, reverse=True))}{_default(parameter)}"


def _default(parameter: Any) -> str:
    default = parameter.default
    if parameter.required:
        return " (required)" if parameter.opts[0].startswith("-") else ""
    if default is None or default is False or default in ("", [], ()) or callable(default):
        return ""
    return f" (`{getattr(default, 'value', default)}`)"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
