"""The same work as ours on stock Faust (faust-streaming): two agents on tables in RocksDB, with changelogs.

    python -m faust -A faust_same_work worker

What it cannot do: batch (a table cannot be changed inside `take`, which has no current event), so one row a model call;
expire entries (windowed tables do, but a repeat may come in the next window), so tables grow; state and predictions
exactly once (a crash repeats a second of queries, and its transactions do not cover RocksDB); answer at the deadline
while the agent is busy; share weights between partitions. It does not wait until a changelog topic that it has made is
known, and then refuses to write to it (0.15.3), so that these topics are made before it starts.
"""

import faust
from common import BATCH, BOOTSTRAP, COMMIT_S, FEEDBACK, FOLDER, GROUP, LINGER_MS, OBJECTIVES_MS, PREDICTIONS, QUERIES
from confluent_kafka.admin import AdminClient, NewTopic
from same_work import Received, Work

PARTITIONS = 4
TABLES = ("decisions", "scored", "losses", "outputs")

changelogs = [
    NewTopic(f"{GROUP}-{name}-changelog", PARTITIONS, config={"cleanup.policy": "compact"}) for name in TABLES
]
admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
for creation in admin.create_topics(changelogs).values():
    creation.result()

app = faust.App(
    GROUP,
    broker=f"kafka://{BOOTSTRAP}",
    datadir=FOLDER,
    store="rocksdb://",
    consumer_auto_offset_reset="earliest",
    broker_commit_interval=COMMIT_S,
    broker_max_poll_records=BATCH,
    producer_linger=LINGER_MS / 1000,
    stream_wait_empty=False,
    topic_partitions=PARTITIONS,
    topic_disable_leader=True,
    web_enabled=False,
)
predictions = app.topic(PREDICTIONS, value_serializer="raw")
tables = [app.Table(name, key_type=str, value_type=bytes, partitions=PARTITIONS) for name in TABLES]
work = Work(*tables, OBJECTIVES_MS)


@app.agent(app.topic(QUERIES, value_type=bytes, value_serializer="raw"))
async def answer(stream):  # noqa: ANN001, ANN201
    async for event in stream.events():
        ((query_id, prediction),) = work.answer([Received(event.value, int(event.message.timestamp * 1000))])
        await predictions.send(key=query_id, value=prediction, partition=event.message.partition)


@app.agent(app.topic(FEEDBACK, value_type=bytes, value_serializer="raw"))
async def learn(stream):  # noqa: ANN001, ANN201
    async for value in stream:
        work.learn([value])
