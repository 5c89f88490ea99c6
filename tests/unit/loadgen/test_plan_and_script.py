import numpy as np
import pytest

from clipper_loadgen import Dataset, LoadPlan
from clipper_loadgen.script import write_script
from clipper_stream.errors import InvalidSetting
from clipper_topics import codec
from clipper_topics.manifests import InputSpec
from clipper_topics.query_ids import partition_of

ROWS = {
    "floats": [[0.5, -1.25, 3.0], [1e-3, 2.0, 0.0]],
    "ints": [[1, 2, 3], [255, 0, -1]],
    "nested": [[[1.5], [2.5]], [[0.5], [0.25]]],
    "text": ["grüße", 'quo"te'],
    "base64": [{"base64": "AAE="}, {"base64": ""}],
    "many": [np.arange(16.0).tolist(), np.arange(70_000.0).tolist()],
}
FOREIGN, UNSENT = (f"0-{run}{'0' * 16}{query:08x}" for run, query in (("ffffabcd", 0), ("0123abcd", 3)))
LABELLED = Dataset(rows=list(range(50)), labels=[row % 3 for row in range(50)])


def script_of(dataset, application="digits", *, queries=1_000, partitions=12, run="0123abcd", **changes):
    plan = LoadPlan(application, mode="saturation", queries=queries, dataset=dataset, **changes)
    return write_script(plan, partitions=partitions, run=run)


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize("contexts", [0, 20_000])
@pytest.mark.parametrize("kind", ROWS)
def test_the_pieces_of_a_query_are_a_query(encoding, contexts, kind):
    script = script_of(Dataset(ROWS[kind]), queries=3, encoding=encoding, contexts=contexts)
    for query in range(3):
        partition, key, value, headers = script.record(query)
        found = codec.queries.decode(value, headers)
        assert found.query_id == script.query_id(query)
        assert partition_of(found.query_id) == partition == script.partitions[query]
        assert script.query_of(found.query_id) == query
        assert found.application == "digits"
        assert found.context == (key.decode() if contexts else None)
        row = ROWS[kind][script.rows[query]]
        assert np.array_equal(found.input, row) or np.allclose(found.input, row, rtol=1e-7)


@pytest.mark.parametrize("query_id", ["", "3@41", FOREIGN, UNSENT, f"0-0123abcd{'0' * 16}nonsense"])
def test_an_id_of_somebody_else_is_no_query_of_ours(query_id):
    assert script_of(Dataset(ROWS["ints"]), queries=3).query_of(query_id) is None


def test_queries_and_feedback_go_to_several_applications_in_turn():
    script = script_of(LABELLED, ("a", "b", "c"), queries=6)
    asked = [codec.queries.decode(script.record(query)[2]).application for query in range(6)]
    assert asked == ["a", "b", "c", "a", "b", "c"]
    partition, key, value, _ = script.feedback(4)
    found = codec.feedback.decode(value)
    assert (partition, key) == script.record(4)[:2]
    assert (found.query_id, found.application, found.label) == (script.query_id(4), "b", script.labels[4])


def test_without_contexts_the_key_is_a_digest_of_the_input_and_without_labels_feedback_is_a_loss():
    script = script_of(Dataset(ROWS["ints"]), queries=4)
    assert len({*zip(script.keys, script.rows, strict=True)}) == len(set(script.keys)) == 2
    assert codec.feedback.decode(script.feedback(0)[2]).loss == 0.0


def test_the_same_seed_draws_the_same_run_and_with_another_number_of_contexts_the_same_rows_and_labels():
    scripts = [script_of(LABELLED, contexts=contexts) for contexts in (2, 100, 0)]
    assert all((script.rows, script.labels) == (scripts[0].rows, scripts[0].labels) for script in scripts)
    assert scripts[0].labels == [row % 3 for row in scripts[0].rows]
    first, same, other = (script_of(LABELLED, contexts=5, seed=seed) for seed in (1, 1, 2))
    assert first == same
    assert first.rows != other.rows


@pytest.mark.parametrize("rate_per_s", [1e6, float("inf"), float("nan")])
def test_a_plan_of_more_queries_than_fit_into_memory_is_refused(rate_per_s):
    with pytest.raises(InvalidSetting, match=f"{rate_per_s * 60:.0f} queries: at most 5000000"):
        LoadPlan("digits", dataset=LABELLED, rate_per_s=rate_per_s, duration_s=60.0)


def test_rows_of_a_spec_are_drawn_with_the_run_a_fresh_one_a_query():
    script = script_of(InputSpec(dtype="int32", shape=[2, 3]), queries=20, repeat_ratio=0.5)
    asked = [np.array(codec.queries.decode(script.record(query)[2]).input) for query in range(20)]
    assert {rows.shape for rows in asked} == {(2, 3)}
    assert len({rows.tobytes() for rows in asked}) == len(set(script.rows)) < 20
