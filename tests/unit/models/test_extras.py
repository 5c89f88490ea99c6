"""Which optional extras are installed here, so that a runtime whose tests did not run is seen."""

import tomllib
from importlib import metadata
from pathlib import Path

import pytest

EXTRAS = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
LEFT_OUT = {"torch"}
"""What `.ci/install` does not install."""


def missing_of(extra):
    names = [requirement.partition(">")[0].partition("=")[0] for requirement in EXTRAS[extra]]
    installed = {each.metadata["Name"].lower() for each in metadata.distributions()}
    return [name for name in names if name.partition("[")[0] not in installed]


@pytest.mark.parametrize("extra", sorted(EXTRAS.keys() - LEFT_OUT))
def test_every_extra_that_make_ci_promises_is_installed(extra):
    assert missing_of(extra) == []


@pytest.mark.parametrize("extra", sorted(LEFT_OUT))
def test_an_extra_that_is_left_out_is_named(extra):
    if missing := missing_of(extra):
        pytest.skip(f"the extra {extra} is not installed ({', '.join(missing)}), so its runtimes were not tested here")


def test_what_is_left_out_is_what_the_installation_leaves_out():
    said = (Path(__file__).parents[3] / ".ci/install").read_text()
    assert {part.split()[0] for part in said.split("--no-extra ")[1:]} == LEFT_OUT
