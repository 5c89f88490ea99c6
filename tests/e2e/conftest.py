"""A Kafka that asks for credentials, for the session."""

from collections.abc import Iterator

import pytest
from secured_kafka import SecuredKafka


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """Started when the first test asks for it."""
    with SecuredKafka(tmp_path_factory.mktemp("secured")).running() as kafka:
        yield kafka
