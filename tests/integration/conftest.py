"""A deployment of a test's own."""

import pytest
from builders.router_deployment import Deployment


@pytest.fixture
def at(kafka, catalogue, tmp_path):
    return Deployment(kafka, catalogue, tmp_path)
