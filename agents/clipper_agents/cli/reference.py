"""The reference page of the commands, from the commands: `python -m clipper_agents.cli.reference`."""

import inspect
from collections.abc import Iterator
from typing import Any

import typer

from clipper_agents.cli.main import app

PAGE = "docs/reference/command-line.md"
SHARED = frozenset({"--config", "--bootstrap", "--set", "--log-level", "--log-format", "--why", "--by", "--help"})
"""Options that are explained once, at the top of the page."""

_HEAD = f"""# Command line

<!-- Generated: python -m clipper_agents.cli.reference > {PAGE} -->

`clipper-stream COMMAND [OPTIONS]`. Results go to standard output, everything else to standard error, so that a program
can read the output of every command. `--help` (`-h`) says what a command takes, `--version` prints the version.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed: trying again may help; `status`: something is wrong |
| 2 | wrong usage |
| 3 | wrong setup (a setting, a model, a connection, a password, a right): change it first |
| 4 | a worker could not go on: its supervisor starts it again |
| 5 | the query or the feedback is at fault: an unknown application or model, a wrong shape |
| 6 | `feedback --wait`: no such query |
| 7 | `feedback --wait`: an earlier feedback about the query counts |
| 130 | interrupted |

Defaults of options are in parentheses. Commands that need a deployment also take these:

- `--config`, `-c`: the [configuration](configuration.md); absent: without an address, `clipper.toml` of this folder
- `--bootstrap`: address of Kafka; before `KAFKA_BOOTSTRAP_SERVERS` and the configuration; absent: of the `up` that
  runs in this folder
- `--set`: any setting as `SECTION.KEY=VALUE`, before its variable `CLIPPER_SECTION_KEY`; repeatable

Commands that change something also take these:

- `--why`: the reason, for the history
- `--by`: who does it; absent: the user of the operating system

Commands that run until they are ended also take these:

- `--log-level`: `debug`, `info`, `warning` or `error`; before the variable `CLIPPER_LOG_LEVEL`; absent: `info`
- `--log-format`: `text`, lines of `key=value`, or `json`, an object a line with the same fields; before the variable
  `CLIPPER_LOG_FORMAT`; absent: `text`
"""


def reference() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *(part for name, command in commands() for part in _section(name, command))])


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
    yield f"{inspect.cleandoc(command.help or '')}\n"
    yield f"    {(command.epilog or '').removeprefix('Example: ')}\n"
    rows = [row for parameter in command.params for row in _row(parameter)]
    if rows:
        yield "\n".join([*rows, ""])


def _row(parameter: Any) -> Iterator[str]:
    names = [*parameter.opts, *parameter.secondary_opts]
    if SHARED.isdisjoint(names) and not getattr(parameter, "hidden", False):
        option = any(name.startswith("-") for name in names)
        shown = ", ".join(f"`{name}`" for name in sorted(names, key=len, reverse=True))
        metavar = (parameter.metavar or parameter.name or "").strip("[].").upper()
        yield f"- {shown if option else f'`{metavar}`'}{_default(parameter)}: {parameter.help or ''}"


def _default(parameter: Any) -> str:
    default = parameter.default
    if parameter.required:
        return " (required)" if parameter.opts[0].startswith("-") else ""
    if default is None or default is False or default in ("", [], ()) or callable(default):
        return ""
    return f" (`{getattr(default, 'value', default)}`)"


if __name__ == "__main__":
    print(reference(), end="")
