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


def words(values, codes):
    return [None if code < 0 else values[code] for code in codes]


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


def test_features_go_with_their_decisions():
    assert FIRST.features.shape == (2, 0)
    long = replace(FIRST, features=np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert long.take([1, 0]).features[:, 0].tolist() == [3.0, 1.0]
    assert long.of_models(["z:1"]).features is long.features
