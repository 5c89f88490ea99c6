"""From a file, the environment and the command line to one nested dictionary of plain values.

Rules of this file:
- Precedence, said here and nowhere else: command line, then environment, then file, then default.
- The environment knows `KAFKA_*` for the connection (`clipper_topics.connection.VARIABLES`; an empty one is absent)
  and `CLIPPER_<SECTION>_<KEY>` for every key of a section: `CLIPPER_ROUTER_PROCESSES=2` is `[router] processes = 2`.
  Other `CLIPPER_*` variables are not looked at.
- A model without a runtime has the one that the form of its URI tells.
- TOML has no null, so `objective_ms = "none"` stands for it: an application without a deadline.
- Text from the environment or the command line is turned into the key's type; a list is separated by commas.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from clipper_agents.settings.sections import (
    BrokerSection,
    GatewaySection,
    HostSection,
    KafkaSection,
    ModelsSection,
    RouterSection,
    StewardSection,
    SupervisorSection,
)
from clipper_stream.errors import InvalidSetting
from clipper_stream.models.registry import runtime_for
from clipper_topics.connection import VARIABLES

SECTIONS: dict[str, type[msgspec.Struct]] = {
    "kafka": KafkaSection,
    "broker": BrokerSection,
    "router": RouterSection,
    "host": HostSection,
    "steward": StewardSection,
    "gateway": GatewaySection,
    "supervisor": SupervisorSection,
    "models": ModelsSection,
}
_LISTS = {("models", "allowed_modules"), ("models", "allowed_locations"), ("gateway", "cors_origins")}
KAFKA_VARIABLES = {variable: key for key, variable in VARIABLES.items() if key != "password"}
"""The connection's variables and their keys; the password is read where the connection is made, and kept nowhere."""


def read_file(path: Path) -> dict[str, Any]:
    """The content of a TOML file, or of a JSON file of the same shape (`*.json`, written by `up` for its workers).

    Raises:
        InvalidSetting: the file cannot be read or is not TOML (JSON).
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InvalidSetting(f"{path}: {error.strerror}; give the path of a clipper.toml") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{path}: not {path.suffix.lstrip('.') or 'toml'}: {error}") from error
    if not isinstance(content, dict):
        raise InvalidSetting(f"{path}: expected a table of sections")
    for application in _tables(content.get("application")):
        if application.get("objective_ms") == "none":
            application["objective_ms"] = None
    for model in _tables(content.get("model")):
        model.setdefault("runtime", runtime_for(str(model.get("uri"))) or "python")
    return content


def _tables(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def overlay(content: dict[str, Any], environ: Mapping[str, str], overrides: Mapping[str, str]) -> dict[str, Any]:
    """The file's content with what the environment and the command line say on top.

    Args:
        content: From `read_file`.
        environ: The environment variables.
        overrides: From the command line: `section.key` to text, for example `{"router.processes": "2"}`.

    Raises:
        InvalidSetting: a variable or override names no key, or its text is not of the key's type.
    """
    merged = {name: dict(part) if isinstance(part, dict) else part for name, part in content.items()}
    said = [*_from_environment(environ), *_from_command_line(overrides)]
    for source, section, key, text in said:
        target = merged.setdefault(section, {})
        if isinstance(target, dict):
            target[key] = _typed(source, section, key, text)
    return merged


def is_setting(variable: str) -> bool:
    """Whether `overlay` reads this environment variable; the password is not one of them."""
    return any(_from_environment({variable: "x"}))


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    for name, text in environ.items():
        if text and name in KAFKA_VARIABLES:
            yield name, "kafka", KAFKA_VARIABLES[name], text
        head, _, tail = name.partition("_")
        section, _, key = tail.partition("_")
        if head == "CLIPPER" and section.lower() in SECTIONS and key:
            yield name, section.lower(), key.lower(), text


def _from_command_line(overrides: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    for name, text in overrides.items():
        section, _, key = name.partition(".")
        if section not in SECTIONS:
            raise InvalidSetting(f"{name}: no such setting; write section.key with one of {', '.join(SECTIONS)}")
        yield name, section, key, text


def _typed(source: str, section: str, key: str, text: str) -> Any:
    fields = {field.name: field for field in msgspec.structs.fields(SECTIONS[section])}
    if key not in fields:
        raise InvalidSetting(f"{source}: [{section}] has no key {key!r}; it has {', '.join(fields)}")
    value = [part for part in map(str.strip, text.split(",")) if part] if (section, key) in _LISTS else text
    try:
        return msgspec.convert(value, fields[key].type, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidSetting(f"{source}={text!r}: {error}".replace("`", "")) from error
