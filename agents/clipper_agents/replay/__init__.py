"""Replay on Kafka: reads the logs of a deployment, folds them again, and compares, exports, evaluates or sends them."""
