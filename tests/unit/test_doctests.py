"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest

PACKAGES = ("clipper_topics", "clipper_stream", "clipper_agents", "clipper_loadgen")


def modules_of(package: str) -> list[str]:
    root = importlib.import_module(package)
    below = pkgutil.walk_packages(root.__path__, prefix=f"{package}.")
    return [package, *(found.name for found in below if not found.name.endswith("__main__"))]


@pytest.mark.parametrize("name", [module for package in PACKAGES for module in modules_of(package)])
def test_examples_in_docstrings_hold(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert outcome.failed == 0
