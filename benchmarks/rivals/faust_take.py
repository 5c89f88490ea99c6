"""Stock Faust (faust-streaming): an agent on `stream.take`, JSON by Faust, an awaited send per answer.

    python -m faust -A faust_take worker

Offsets are committed once a second. An exception in the agent acknowledges its batch, which is lost then.
"""

import faust
from common import BATCH, BOOTSTRAP, COMMIT_S, FOLDER, GROUP, LINGER_MS, PREDICTIONS, QUERIES, answers

FILL_S = 0.01

app = faust.App(
    GROUP,
    broker=f"kafka://{BOOTSTRAP}",
    datadir=FOLDER,
    value_serializer="json",
    consumer_auto_offset_reset="earliest",
    broker_commit_interval=COMMIT_S,
    broker_max_poll_records=BATCH,
    producer_linger=LINGER_MS / 1000,
    stream_wait_empty=False,
    topic_allow_declare=False,
    topic_disable_leader=True,
    web_enabled=False,
)
predictions = app.topic(PREDICTIONS)


@app.agent(app.topic(QUERIES))
async def score(stream):  # noqa: ANN001, ANN201
    async for queries in stream.take(BATCH, within=FILL_S):
        for answer in answers(queries):
            await predictions.send(key=answer["query_id"], value=answer)
