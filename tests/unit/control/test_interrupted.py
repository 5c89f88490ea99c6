import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnknownError,
)

from clipper_agents.control.writer import interrupted


def behind(error: Exception) -> KafkaError:
    """As aiokafka's sender tells an error that it did not expect."""
    told = KafkaError("Unexpected error during batch delivery")
    told.__cause__ = error
    return told


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (behind(UnknownError()), True),  # another writer began just while the transaction was being ended
        (UnknownError(), True),
        (KafkaConnectionError(), True),
        (TimeoutError(), True),
        (behind(TopicAuthorizationFailedError()), False),
        (TransactionalIdAuthorizationFailed(), False),
    ],
)
def test_a_change_is_begun_again_where_nobody_knows_what_became_of_it(error, again):
    assert interrupted(error) is again
