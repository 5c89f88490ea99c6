"""Which optional extras are installed here, so that a runtime whose tests did not run is seen."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_extra_is_installed():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {each.metadata["Name"].lower() for each in metadata.distributions()}
    needed = {extra: {re.split(r"[>=\[]", each)[0] for each in extras[extra]} for extra in extras}
    assert {extra: names - installed for extra, names in needed.items() if names - installed} == {}


def test_the_page_says_what_each_extra_is_for():
    rows = re.findall(r"^\| (`[^|]+`) \|", (ROOT / "docs/how-to/install.md").read_text(), re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == {*extras}
