"""What this project puts on Faust's plug points, and the only code that knows Faust's insides.

| module | plug point | why |
|---|---|---|
| `consumer` | `Transport.Consumer` | whole fetched lists instead of one task a record; nothing is lost in a rebalance |
| | the consumer's thread | none: one event loop, no hand-over of the interpreter lock |
| | the consumer's acks | only the contiguous finished prefix of a partition is ever committed |
| `outbox` | `Transport.Producer` | idempotent, outlives an outage, and never goes on after a lost record |
| | beside `Topic.send` | prepared batches a partition, acknowledged as a batch |
| `stream` | `App(Stream=...)` | chunks of everything that is queued, instead of single events |
| `recovery` | `App(TableManager=...)` | pause, settle, seek, resume: in this order no record is skipped |
| `table` | `faust.Table` | rows whose changelog record is acknowledged before they count |
| `databases`, `storage` | Faust's store | RocksDB: what is corrupt is built anew; what a disk refuses is told |
| `app` | `faust.App`, its assignor | the settings that the above need; no partition moves between members that stay |
| `reachability`, `dead_letters` | beside Faust | does Kafka answer; records that could not be used, kept |
| `worker_process` | `faust.Worker` | start, say that it serves, drain, end loudly |

Checked against faust-streaming 0.15.3, mode-streaming 0.7.1 and aiokafka 0.14.0; docs/explanation/streaming.md tells
the whole story and tests/unit/streaming pins the versions.
"""
