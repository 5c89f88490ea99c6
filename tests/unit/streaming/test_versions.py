"""The insides of Faust and aiokafka that this package builds on, pinned.

A failure here says: the libraries have changed. Read what `streaming` overrides in their new sources (the table in its
docstring says where), run tests/faults and tests/integration, and then write the new versions down here.
"""

import inspect
from importlib.metadata import version

import aiokafka.producer.message_accumulator as accumulator
from aiokafka.consumer.fetcher import Fetcher
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


def test_the_first_record_of_a_batch_is_taken_whatever_its_size():
    """So the outbox never has to look at sizes; topics and senders bound them."""
    batch = accumulator.BatchBuilder(100, 0, is_transactional=False)
    assert batch.append(key=None, value=b"x" * 1000, timestamp=None, headers=[]) is not None
    assert batch.append(key=None, value=b"x", timestamp=None, headers=[]) is None


def test_sources_have_what_is_relied_on():
    """Paused partitions are drained only when none is wanted: hence the frozen copy of those in `BulkConsumer`."""
    for source, text in (
        (accumulator.MessageAccumulator.__init__, "_batch_ttl"),
        (Fetcher.__init__, "_prefetch_backoff"),
        (Fetcher.fetched_records, "if partitions and tp not in partitions"),
    ):
        assert text in inspect.getsource(source)
