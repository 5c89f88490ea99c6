import pyarrow.parquet as pq
from builders.decision_logs import answer, decided
from builders.kafka import record
from unit.replay.deployment import CATALOGUE
from unit.replay.test_decision_join import Log

from clipper_agents.replay.decision_join import DecisionJoin
from clipper_agents.replay.log_tables import LogTables
from clipper_topics.prediction import Prediction

# What a query says, and its input; null beside the other of `input` and `inputs` is absent.
INPUTS = {
    b'{"application": "a", "input": [1], "inputs": null}': '{"input":[1]}',
    b'{"application": "a", "input": null, "inputs": [[1]]}': '{"inputs":[[1]]}',
    b'{"application": "a", "input": null}': '{"input":null}',
    b'{"application": "a", "inputs": null}': None,
    b"{": None,
}


def test_the_input_of_each_decision_is_that_of_its_query_in_its_partition(tmp_path):
    offsets, texts = [3, -1, 4, 0, 99, 2, 1], [*INPUTS.values()]
    log = Log(*(decided(f"{at}", answer("a:1", 1), query_offset=at) for at in offsets), partition=1)
    queries = [record(at, value, topic=CATALOGUE.queries, partition=1) for at, value in enumerate(INPUTS)]
    elsewhere = [record(3, b'{"input": 9}', topic=CATALOGUE.queries, partition=0)]
    with LogTables(tmp_path, "0", CATALOGUE, "app", {1: 0}) as tables:
        tables.take([one for one, _ in log.contents(Prediction)])
        tables.take(queries)
        tables.take(elsewhere)
    assert tables.asked == {1: (0, 99)}
    with DecisionJoin(tmp_path, application="app", loss_kind="zero_one") as join:
        join.write(tmp_path / "x.parquet", {}, 2_048)
    found = pq.read_table(tmp_path / "x.parquet", columns=["input"])["input"].to_pylist()
    assert found == [texts[3], None, texts[4], texts[0], None, texts[2], texts[1]]
