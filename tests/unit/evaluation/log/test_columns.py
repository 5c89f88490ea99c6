from dataclasses import replace

import numpy as np

from clipper_stream.evaluation.log.columns import DecisionColumns


def columns(models, contexts, values, **given):
    empty = DecisionColumns.empty(models, len(given["offset"]))
    arrays = {name: np.array(each, getattr(empty, name).dtype) for name, each in given.items()}
    return replace(empty, contexts=contexts, policies=("exp3",), values=values, **arrays)


FIRST = columns(
    ["a:1", "b:1"], ("x", None), ("1", "2"),
    offset=[0, 1], context=[0, 1], propensity=[[0.5, 0], [0, 0.25]], output=[[0, -1], [-1, 1]], label=[1, -1],
)  # fmt: skip
SECOND = columns(
    ["b:1", "c:2"], (None, "y"), ("2", "3"),
    offset=[7], context=[1], propensity=[[0.75, 1.0]], output=[[0, 1]], label=[0],
)  # fmt: skip


def words(values, codes):
    return [None if code < 0 else values[code] for code in codes]


def test_parts_with_other_models_contexts_and_values_become_one():
    both = DecisionColumns.concatenated([FIRST, DecisionColumns.empty(["z:1"]), SECOND])
    assert both.models == ("a:1", "b:1", "c:2")
    assert both.propensity.tolist() == [[0.5, 0, 0], [0, 0.25, 0], [0, 0.75, 1.0]]
    assert words(both.contexts, both.context) == ["x", None, "y"]
    outputs = [words(both.values, row) for row in both.output]
    assert outputs == [["1", None, None], [None, "2", None], [None, "2", "3"]]
    assert words(both.values, both.label) == ["2", None, "2"]
    assert len(DecisionColumns.concatenated([])) == 0


def test_rows_are_taken_in_the_order_wanted():
    assert FIRST.take([1, 0]).offset.tolist() == [1, 0]
    assert FIRST.take(FIRST.propensity[:, 0] > 0).offset.tolist() == [0]


def test_a_model_that_was_never_asked_has_an_empty_column():
    wider = FIRST.of_models(["c:2", "a:1"])
    assert wider.propensity.tolist() == [[0, 0.5], [0, 0]]
    assert wider.asked.tolist() == [[False, True], [False, False]]
    assert np.isnan(FIRST.of_models(["c:2"]).loss).all()


def test_contexts_are_counted_through_other_names():
    whole = FIRST.of_contexts((None, "y", "x"))
    assert words(whole.contexts, whole.context) == ["x", None]


def test_features_go_with_their_decisions_and_missing_ones_are_unknown():
    assert DecisionColumns.concatenated([FIRST, SECOND]).features.shape == (3, 0)
    long, short = replace(FIRST, features=np.array([[1.0, 2.0], [3.0, 4.0]])), replace(SECOND, features=np.ones((1, 1)))
    both = DecisionColumns.concatenated([short, long, SECOND])
    assert both.take([2, 0]).features[:, 0].tolist() == [3.0, 1.0]
    assert both.features[1:3].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert np.isnan(both.features[[0, 3]]).tolist() == [[False, True], [True, True]]
    assert long.of_models(["z:1"]).features is long.features
