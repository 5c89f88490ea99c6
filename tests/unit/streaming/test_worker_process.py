import time
from types import SimpleNamespace

import pytest
from aiokafka.errors import ProducerClosed

from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.membership import OwnershipLease
from clipper_agents.streaming.worker_process import failed_while_stopping


@pytest.mark.parametrize(
    ("crashed", "reason", "failed"),
    [
        (False, None, False),
        (True, ProducerClosed(), False),
        (True, RuntimeError("our own bug"), True),
        (True, None, True),
    ],
)
def test_use_of_a_closed_client_is_no_failure_of_a_stopped_worker(crashed, reason, failed):
    assert failed_while_stopping(SimpleNamespace(crashed=crashed, crash_reason=reason)) is failed


@pytest.mark.parametrize(
    ("generation", "inputs", "missing", "reasons"),
    [
        (-1, {}, {"b", "a"}, ["topic a, b is missing: run `clipper-stream topics create`"]),
        (2, {}, {"a"}, ["topic a is missing: run `clipper-stream topics create`"]),
        (-1, {}, {}, ["no partition is assigned yet"]),
        (-1, {3, 0}, {}, ["partition 0 is not recovered yet", "partition 3 is not recovered yet"]),
        (2, {3, 0}, {}, []),
        (2, {}, {}, ["no partition is assigned: there are more such processes than partitions"]),
        (2, {1}, {}, ["the coordinator of its group does not answer: is a broker away, or cut off?"]),
    ],
    ids=["topics missing", "topic missing", "before the group", "in recovery", "serving", "one too many", "cut off"],
)
def test_a_worker_is_ready_once_its_topics_are_there_and_its_partitions_are_recovered(
    generation, inputs, missing, reasons, request
):
    topic_ids, lease = SimpleNamespace(missing=frozenset(missing)), OwnershipLease(10.0)
    if request.node.callspec.id != "cut off":
        lease.answered(time.monotonic())
    parts = dict(topic_ids=topic_ids, lease=lease)
    app = SimpleNamespace(generation=generation, inputs=frozenset(inputs), **parts)
    assert ClipperApp.unready(app) == reasons
