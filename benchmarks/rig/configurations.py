"""Configurations that a benchmark makes itself, as the TOML that `clipper-stream up` reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

NO_DEADLINE_MS = 600_000
INPUT = {"dtype": "float32", "shape": [64]}


def model(name: str, uri: str, **further: Any) -> dict[str, Any]:
    """A model that is never answered for by the cache."""
    return {
        "name": name,
        "version": "1",
        "runtime": "python",
        "uri": uri,
        "input": INPUT,
        "deterministic": False,
    } | further


def application(name: str, models: list[str], policy: str, objective_ms: int = NO_DEADLINE_MS) -> dict[str, Any]:
    """An application on models of version 1; its default output is -1."""
    return {
        "name": name,
        "input": INPUT,
        "models": [f"{model}:1" for model in models],
        "policy": {"name": policy},
        "objective_ms": objective_ms,
        "default_output": -1,
    }


def written(path: Path, applications: list[dict[str, Any]], models: list[dict[str, Any]], routers: int = 1) -> str:
    """The configuration as a file; its path."""
    sections = ["[kafka]\n", f"[router]\nprocesses = {routers}\n"]
    for kind, several in (("application", applications), ("model", models)):
        sections += [
            f"[[{kind}]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in each.items()) for each in several
        ]
    path.write_text("\n".join(sections))
    return str(path)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
