"""The whole registry as one file, that `clipper-stream apply -f` takes back without a change."""

from collections.abc import Iterator
from typing import Any

import msgspec
import tomli_w

from clipper_agents.control.errors import RefusedChange
from clipper_agents.control.plan import Published, stated


def as_toml(published: Published) -> str:
    """Every manifest as the tables of a configuration.

    Raises:
        RefusedChange: a value has a null in it, which TOML does not have.

    >>> from clipper_agents.control.state import Manifests
    >>> from clipper_topics.manifests import ModelManifest
    >>> print(as_toml(Manifests(models={"svm:1": ModelManifest(name="svm", uri="m:f")})).splitlines()[:3])
    ['[[model]]', 'name = "svm"', 'uri = "m:f"']
    """
    content = _content(published)
    for application in content["application"]:
        if application.get("objective_ms", 0) is None:
            application["objective_ms"] = "none"  # as a configuration has it
    for path in _nulls("", content):
        raise RefusedChange(f"{path} is null, which TOML cannot say: export with --json")
    return "\n".join(_table(kind, each) for kind, tables in content.items() for each in tables)


def _table(kind: str, content: dict[str, Any]) -> str:
    """One table of an array; the writer would put short ones on a line of their own, which nobody can edit."""
    return "[" + tomli_w.dumps({kind: content}).replace("]\n", "]]\n", 1)


def as_json(published: Published) -> str:
    """Every manifest, in JSON of the same shape."""
    return msgspec.json.format(msgspec.json.encode(_content(published)), indent=2).decode() + "\n"


def _content(published: Published) -> dict[str, list[dict[str, Any]]]:
    return {
        "model": [stated(model) for _, model in sorted(published.models.items())],
        "application": [stated(each) for _, each in sorted(published.applications.items())],
    }


def _nulls(path: str, value: Any) -> Iterator[str]:
    if value is None:
        yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield from _nulls(f"{path}.{key}".lstrip("."), member)
