"""Options that several commands have, and the settings that they make."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from clipper_agents.settings import Settings

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="Configuration, as examples/clipper.toml.")
]
Bootstrap = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Address of Kafka; before KAFKA_BOOTSTRAP_SERVERS and the configuration."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any setting, for example router.processes=2; repeatable."),
]
LogLevel = Annotated[
    str | None,
    typer.Option(metavar="LEVEL", help="debug, info, warning or error; before CLIPPER_LOG_LEVEL, default info."),
]


def settings_from(config: Path | None, bootstrap: str | None, assignments: list[str] | None) -> "Settings":
    """The settings of a command: its options, then the environment, then the file, then defaults.

    Raises:
        InvalidSetting: with the file or option, the value and what is allowed.
    """
    from clipper_agents.settings import load_settings

    overrides = dict(_assignment(text) for text in assignments or ())
    if bootstrap:
        overrides["kafka.bootstrap"] = bootstrap
    return load_settings(config, os.environ, overrides)


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--set {text}: write SECTION.KEY=VALUE, for example router.processes=2")
    return name.strip(), value.strip()
