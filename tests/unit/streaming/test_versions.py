"""The insides of Faust and aiokafka that this package builds on, pinned.

A failure here says: the libraries have changed. Read what `streaming` overrides in their new sources (the table in its
docstring says where), run tests/faults and tests/integration, and then write the new versions down here. Look also
whether the first record of a batch is taken whatever its size (the outbox looks at none), `_batch_ttl` and
`_prefetch_backoff` still count, and `fetched_records` drains paused partitions only when no partition is wanted.
"""

from importlib.metadata import version

from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust import App
from faust.app.base import BootStrategy
from faust.channels import Channel

USED = {
    App: "_wait_for_table_recovery_completed _stop_consumer maybe_start_producer on_shutdown",
    BootStrategy: "kafka_consumer",
    Channel: "queue clone",
    GroupCoordinator: "_do_rejoin_group _do_heartbeat _send_req fetch_committed_offsets reset_generation",
    Fetcher: "fetched_records",
}
"""What is overridden or called."""


def test_the_versions_are_those_that_the_insides_were_checked_with():
    checked = {"faust-streaming": "0.15.3", "mode-streaming": "0.7.1", "aiokafka": "0.14.0"}
    assert {name: version(name) for name in checked} == checked
    assert [name for owner, names in USED.items() for name in names.split() if not hasattr(owner, name)] == []
