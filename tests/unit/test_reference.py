"""The reference pages list every key, default, command and option that the code has."""

import dataclasses
import re
from pathlib import Path

import msgspec
import pytest

from clipper_agents.cli.reference import PAGE as PAGE_OF_COMMANDS
from clipper_agents.cli.reference import reference
from clipper_agents.settings import (
    BrokerSection,
    GatewaySection,
    HostSection,
    KafkaSection,
    ModelsSection,
    RouterSection,
    StewardSection,
)
from clipper_stream.selection.registry import POLICIES
from clipper_topics.connection import VARIABLES
from clipper_topics.manifests import ApplicationManifest, ModelManifest

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"
PAGE = (REFERENCE / "configuration.md").read_text()
SECTIONS: dict[str, type[msgspec.Struct]] = {
    "[kafka]": KafkaSection,
    "[broker]": BrokerSection,
    "[router]": RouterSection,
    "[host]": HostSection,
    "[models]": ModelsSection,
    "[steward]": StewardSection,
    "[gateway]": GatewaySection,
    "[[application]]": ApplicationManifest,
    "[[model]]": ModelManifest,
}


def rows_of(section: str) -> dict[str, str]:
    """Keys of the section, and the default of each."""
    text = PAGE.split(f"## `{section}`")[1].split("\n## ")[0]
    rows = re.findall(r"^- (`[^(]+`) \((.*?)\):", text, flags=re.MULTILINE)
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


def test_the_reference_of_the_commands_is_what_the_commands_say() -> None:
    assert (ROOT / PAGE_OF_COMMANDS).read_text() == reference(), "run python -m clipper_agents.cli.reference"


def test_every_command_stands_once_in_the_reference() -> None:
    headings = re.findall(r"^## `([^`]+)`$", reference(), flags=re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert {"demo", "model deploy", "replay verify", "worker steward"} <= set(headings)
