"""What this project puts on Faust's plug points, and the only code that knows Faust's insides.

| module | plug point | why |
|---|---|---|
| `consumer` | `app.channel()`, in place of Faust's consumer | whole fetched lists; nothing is lost in a rebalance |
| `membership` | aiokafka's coordinator | who else has the name, whose the partitions are, and that few move |
| `outbox` | in place of `Topic.send` | prepared batches a partition, acknowledged as a batch |
| `stream` | `App(Stream=...)` | chunks of everything that is queued, instead of single events |
| `table` | `faust.Table` | rows whose changelog record is acknowledged before they count |
| `databases`, `storage` | Faust's store | RocksDB: what is corrupt is built anew; what a disk refuses is told |
| `app` | `faust.App`, its `BootStrategy` | agents, with the above in place of Faust's Kafka |
| `reachability`, `dead_letters` | beside Faust | does Kafka answer; records that could not be used, kept |
| `worker_process` | `faust.Worker` | start, say that it serves, drain, end loudly |

Checked against faust-streaming 0.15.3, mode-streaming 0.7.1 and aiokafka 0.14.0; docs/explanation/streaming.md tells
the whole story and tests/unit/streaming pins the versions.
"""
