"""The insides of Faust and aiokafka that this package builds on, pinned.

A failure here says: the libraries have changed. Read what `streaming` overrides in their new sources (the table in its
docstring says where), run tests/faults and tests/integration, and then write the new versions down here. Look also
whether the first record of a batch is taken whatever its size (the outbox looks at none), `_batch_ttl` and
`_prefetch_backoff` still count, and `fetched_records` drains paused partitions only when no partition is wanted.
"""

from importlib.metadata import version

from faust.tables.recovery import Recovery
from faust.transport.consumer import Consumer
from faust.transport.drivers import aiokafka as driver

USED = {
    Consumer: "_wait_next_records _drain_messages _new_offset _filter_tps_with_pending_acks perform_seek "
    "on_partitions_revoked on_partitions_assigned on_buffer_full on_buffer_drop",
    driver.Consumer: "_new_consumer_thread verify_event_path",
    driver.AIOKafkaConsumerThread: "_create_worker_consumer call_thread _ensure_consumer on_thread_stop",
    driver.Producer: "_settings_extra _new_producer _ensure_producer flush",
    Recovery: "on_rebalance on_recovery_completed _build_offsets _resume_streams _set_recovery_ended",
}
"""What is overridden or called."""


def test_the_versions_are_those_that_the_insides_were_checked_with():
    checked = {"faust-streaming": "0.15.3", "mode-streaming": "0.7.1", "aiokafka": "0.14.0"}
    assert {name: version(name) for name in checked} == checked
    assert [name for owner, names in USED.items() for name in names.split() if not hasattr(owner, name)] == []
