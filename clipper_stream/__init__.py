"""Prediction serving as a library: batching, caching, selection, combining and feedback, without any I/O.

Of its packages only `client` talks to Kafka. Time comes in as an argument and randomness as a seeded generator, so
that every decision can be replayed.
"""
