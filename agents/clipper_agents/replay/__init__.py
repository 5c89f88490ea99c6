"""Replay on Kafka: reads the logs of a deployment, folds them again, and compares, restores, exports or sends them.

[span]: which offsets --> [reading]: a partition's records --> [joining]: ids, feedback, audits --> [scoring]: columns
        EmptySpan                 KafkaUnreachable [logs]            what cannot be used is counted [source]
[workers]: several partitions at once   [exporting]: into a file   [source]: from the logs or from a file
           ReadingBroken                 UnusableFile
"""
