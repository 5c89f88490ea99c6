"""The reference pages list every key, default, command and option that the code has."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer.main

from clipper_agents.cli.main import app
from clipper_agents.settings import (
    BrokerSection,
    HostSection,
    KafkaSection,
    ModelsSection,
    RouterSection,
    StewardSection,
)
from clipper_stream.selection.registry import POLICIES
from clipper_topics.connection import VARIABLES
from clipper_topics.manifests import ApplicationManifest, ModelManifest

REFERENCE = Path(__file__).parents[2] / "docs/reference"
PAGE = (REFERENCE / "configuration.md").read_text()
COMMANDS = (REFERENCE / "command-line.md").read_text()
PROGRAM = typer.main.get_command(app)
SECTIONS: dict[str, type[msgspec.Struct]] = {
    "[kafka]": KafkaSection,
    "[broker]": BrokerSection,
    "[router]": RouterSection,
    "[host]": HostSection,
    "[models]": ModelsSection,
    "[steward]": StewardSection,
    "[[application]]": ApplicationManifest,
    "[[model]]": ModelManifest,
}


def rows_of(section: str) -> dict[str, str]:
    """Keys of the section's table, and what stands beside each."""
    text = PAGE.split(f"## `{section}`")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \| ([^|]*) \|", text, flags=re.MULTILINE)
    return {key.split(".")[0]: default.strip(" `") for keys, default in rows for key in re.findall(r"`([^`]+)`", keys)}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_in_the_reference(section: str) -> None:
    keys = {field.encode_name for field in msgspec.structs.fields(SECTIONS[section])}
    assert keys <= set(rows_of(section))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_plain_default_is_the_one_in_the_reference(section: str) -> None:
    rows = rows_of(section)
    for field in msgspec.structs.fields(SECTIONS[section]):
        if isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
            assert float(rows[field.encode_name]) == field.default, field.encode_name
        if isinstance(field.default, (bool, str)):
            assert rows[field.encode_name] == str(field.default).replace("True", "true").replace("False", "false")


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_and_its_parameters_are_in_the_reference(name: str) -> None:
    table = PAGE.split("### Selection policies")[1].split("\n## ")[0]
    row = next(line for line in table.splitlines() if line.startswith(f"| `{name}` |"))
    for field in dataclasses.fields(POLICIES[name]):  # type: ignore[arg-type]  # every policy is a dataclass
        assert f"`{field.name}`" in row
        if isinstance(field.default, float):
            assert f"`{field.name}` {field.default:g}" in row


def test_every_variable_of_the_connection_is_in_the_reference() -> None:
    assert all(f"`{variable}`" in PAGE for variable in VARIABLES.values())


def commands_of(group: Any, prefix: str = "") -> dict[str, Any]:
    """Commands by their words; a group stands for the commands below it."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        found |= commands_of(command, f"{prefix}{name} ") if hasattr(command, "commands") else {prefix + name: command}
    return found


@pytest.mark.parametrize("name", commands_of(PROGRAM))
def test_every_command_and_option_is_in_the_reference(name: str) -> None:
    assert f"`{name}`" in COMMANDS
    parameters = commands_of(PROGRAM)[name].params
    shown = {option for each in parameters if not getattr(each, "hidden", False) for option in each.opts}
    assert {option for option in shown if option.startswith("--") and f"`{option}`" not in COMMANDS} == set()
