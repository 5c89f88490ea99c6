"""Kafka as this project uses it, apart from Faust.

| module | holds |
|---|---|
| `clients` | consumers, producers and admin clients: the only place of the running system that builds them |
| `retry` | how long Kafka may be away, and which errors pass: the one retry |
| `reader` | ranges of a log, or what comes, and where partitions begin and end: the one reader |
| `follower` | a compacted topic, read whole and followed |
| `topics`, `consumer_groups` | administration |
| `startup_check` | what a worker does before anything else |
| `aiokafka_patches` | what aiokafka has no setting for |
"""
