"""The deployment that most cases are about: applications that learn in every way there is."""

import tomllib
from pathlib import Path

CONFIGURATION = Path(__file__).with_name("kills.toml")
APPLICATIONS = {one["name"]: one for one in tomllib.loads(CONFIGURATION.read_text())["application"]}
