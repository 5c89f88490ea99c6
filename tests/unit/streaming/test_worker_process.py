from types import SimpleNamespace

import pytest
from aiokafka.errors import ProducerClosed
from faust.exceptions import ConsumerNotStarted

from clipper_agents.streaming.worker_process import failed_while_stopping


@pytest.mark.parametrize(
    ("crashed", "reason", "failed"),
    [
        (False, None, False),
        (True, ProducerClosed(), False),
        (True, ConsumerNotStarted(), False),
        (True, RuntimeError("our own bug"), True),
        (True, None, True),
    ],
)
def test_use_of_a_closed_or_unstarted_client_is_no_failure_of_a_stopped_worker(crashed, reason, failed):
    assert failed_while_stopping(SimpleNamespace(crashed=crashed, crash_reason=reason)) is failed
