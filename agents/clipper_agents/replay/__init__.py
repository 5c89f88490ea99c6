"""Replay of the logs: what was decided and what became of it, read from Kafka or from files, as columns.

[span]: which offsets --> [reading]: one partition --> [joining]: ids, feedback, audits --> [scoring]: columns
  TopicMismatch, EmptySpan       KafkaUnreachable             (nothing: what cannot be used is counted)
                                      ^
[source]: several partitions, in processes of their own, or a file
"""
