"""Whether the tests make the pictures of the documentation anew."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", action="store_true", help="write docs/images/console-*.png anew (-m browser)")
