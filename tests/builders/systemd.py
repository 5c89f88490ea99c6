"""The units of `deploy/systemd` as data, with the drop-in that they share: no systemd is needed to start them."""

import re
import shlex
from pathlib import Path

UNITS = Path(__file__).parents[2] / "deploy/systemd"
PROGRAM, CONFIG = "/opt/clipper/bin/clipper-stream", "/etc/clipper/clipper.toml"
NAMES = sorted(path.name for path in UNITS.glob("*.service"))


def settings(unit: str) -> dict[str, str]:
    """What a unit says, and what the drop-in says where it does not, by key."""
    texts = ((UNITS / name).read_text() for name in ("clipper-.service.d/common.conf", unit))
    return {key: value for text in texts for key, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)}


def environment(unit: str, number: int = 0) -> dict[str, str]:
    """The variables that a unit sets."""
    return dict(word.split("=", 1) for word in settings(unit)["Environment"].replace("%i", str(number)).split())


def command(unit: str, machine: str, number: int = 0) -> list[str]:
    """The words behind the program of a unit's command, on the machine of this host name."""
    program, *words = shlex.split(settings(unit)["ExecStart"].replace("%H", machine).replace("%i", str(number)))
    assert program == PROGRAM
    return words
