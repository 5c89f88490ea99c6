"""Replay on Kafka: reads the logs of a deployment, folds them again, and compares, restores or evaluates."""
