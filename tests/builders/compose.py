"""The compose file and its image as data: Docker is not needed to hold them against the code."""

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
CONFIG = "/etc/clipper/clipper.toml"


def settled(text: str) -> str:
    """The text as compose reads it without any variable set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def program(service: str) -> list[str]:
    """The service's command line from `clipper-stream` on, without the shell around it."""
    words = shlex.split(SERVICES[service]["command"])
    if words[:2] == ["sh", "-c"]:
        words = shlex.split(words[2].partition(" > ")[0])[1:]  # exec, so that signals reach the program
    return words
