"""Replay on Kafka: reads the logs of a deployment, folds them again, and compares, restores, exports or sends them.

[span]: which offsets --> [reading]: one partition --> [joining]: ids, feedback, audits --> [scoring]: columns
  TopicMismatch, EmptySpan       KafkaUnreachable             (nothing: what cannot be used is counted)
                                      ^
[source]: several partitions, in processes of their own, or a file
"""
