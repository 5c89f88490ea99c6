"""A deployment for all modules of the folder, and whoever has its spans."""

from collections.abc import Iterator

import httpx
import pytest
from builders.otlp import Collector, collecting
from e2e.gateways import CONFIGURATION, Deployment, client_of, deployed, traced

from clipper_topics.connection import KafkaConnection


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="session")
def deployment(
    kafka: KafkaConnection, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Started when the first test asks for it; its gateway begins no trace of its own."""
    folder = tmp_path_factory.mktemp("shared")
    with deployed(kafka, folder, CONFIGURATION, **traced(collector.root)) as deployment:
        yield deployment


@pytest.fixture(scope="session")
def client(deployment: Deployment) -> Iterator[httpx.Client]:
    with client_of(deployment.url) as client:
        yield client
