"""A deployment for all modules of the folder, and whoever has its spans."""

from collections.abc import Iterator

import pytest
from builders.otlp import Collector, collecting
from e2e.gateways import CONFIGURATION, Deployment, deployed, traced

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
