"""Quix Streams: a streaming dataframe with `apply`, so one row a model call; a stateless micro-batch does not exist.

At least once: a checkpoint (flush, then commit) once a second.
"""

from common import BOOTSTRAP, COMMIT_S, FOLDER, GROUP, LINGER_MS, PREDICTIONS, QUERIES, answers
from quixstreams import Application

app = Application(
    broker_address=BOOTSTRAP,
    consumer_group=GROUP,
    state_dir=FOLDER / "state",
    auto_offset_reset="earliest",
    auto_create_topics=False,
    commit_interval=COMMIT_S,
    producer_extra_config={"acks": "all", "linger.ms": LINGER_MS},
    loglevel="WARNING",
)
rows = app.dataframe(app.topic(QUERIES, value_deserializer="json"))
rows.apply(lambda query: answers([query])[0]).to_topic(app.topic(PREDICTIONS, value_serializer="json"))

if __name__ == "__main__":
    app.run()
