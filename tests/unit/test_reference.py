"""The configuration reference lists every key and every default of the records that are read."""

import re
from pathlib import Path

import msgspec
import pytest

from clipper_agents.settings import BrokerSection, HostSection, KafkaSection, RouterSection
from clipper_topics.connection import VARIABLES
from clipper_topics.manifests import ApplicationManifest, ModelManifest

PAGE = (Path(__file__).parents[2] / "docs/reference/configuration.md").read_text()
SECTIONS: dict[str, type[msgspec.Struct]] = {
    "[kafka]": KafkaSection,
    "[broker]": BrokerSection,
    "[router]": RouterSection,
    "[host]": HostSection,
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


def test_every_variable_of_the_connection_is_in_the_reference() -> None:
    assert all(f"`{variable}`" in PAGE for variable in VARIABLES.values())
