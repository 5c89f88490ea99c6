"""One answer from several outputs, and the share of the asked models that agree with it."""

import math

import pytest

from clipper_stream.combining.combiner import Combined, combine, renormalized_weights
from clipper_stream.errors import ModelFailed, UnknownName

WEIGHTS = {"a:1": 0.5, "b:1": 0.3, "c:1": 0.2}


def test_the_label_with_the_most_weight_wins_not_the_one_with_most_models():
    outputs = {"a:1": "cat", "b:1": "dog", "c:1": "dog"}
    assert combine("vote", outputs, {"a:1": 0.6, "b:1": 0.2, "c:1": 0.2}, 3) == Combined("cat", 1 / 3)


def test_a_tie_goes_to_the_earliest_candidate_whoever_answered_first():
    weights = {"a:1": 0.5, "b:1": 0.25, "c:1": 0.25}
    for order in (["c:1", "b:1", "a:1"], ["a:1", "b:1", "c:1"], ["b:1", "a:1", "c:1"]):
        outputs = {model: {"a:1": 1, "b:1": 0, "c:1": 0}[model] for model in order}
        assert combine("vote", outputs, weights, 3).output == 1


def test_models_that_did_not_answer_lower_the_confidence():
    assert combine("vote", {"a:1": 7, "b:1": 7}, WEIGHTS, 4) == Combined(7, 0.5)
    assert combine("mean", {"a:1": 7.0, "b:1": 7.0}, WEIGHTS, 4) == Combined(7.0, 0.5)


def test_a_single_output_is_the_answer_as_it_is():
    assert combine("vote", {"a:1": {"x": [1]}}, {}, 1) == Combined({"x": [1]}, 1.0)
    assert combine("mean", {"a:1": 3}, {}, 2) == Combined(3, 0.5)


@pytest.mark.parametrize("weights", [{}, {"a:1": 0.0, "b:1": 0.0, "c:1": 1.0}, {"c:1": 1.0}])
def test_where_no_model_that_answered_has_weight_all_count_alike(weights):
    assert combine("mean", {"a:1": 1.0, "b:1": 3.0}, weights, 2).output == 2.0
    assert combine("mean", {"a:1": [1.0], "b:1": [3.0]}, weights, 2).output == [2.0]


def test_a_model_without_a_weight_has_no_say_beside_one_that_has():
    assert combine("vote", {"z:1": 1, "y:1": 1, "c:1": 2}, WEIGHTS, 3).output == 2


def test_shares_are_in_candidate_order():
    assert list(renormalized_weights(["z:1", "c:1", "y:1", "a:1"], WEIGHTS)) == ["a:1", "c:1", "y:1", "z:1"]


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        (1, 1.0, True),
        (1, "1", False),
        ([1, 2], (1, 2), True),
        ([1, 2], [2, 1], False),
        ({"x": 1, "y": [2]}, {"y": [2], "x": 1}, True),
        ({"x": 1}, [["x", 1]], False),
        (None, None, True),
        (math.nan, math.nan, True),
    ],
)
def test_labels_of_any_kind_are_counted_together_when_equal(first, second, equal):
    combined = combine("vote", {"a:1": first, "b:1": second}, WEIGHTS, 2)
    assert combined.confidence == (1.0 if equal else 0.5)


def test_a_mean_of_numbers_is_weighted():
    assert combine("mean", {"a:1": 1.0, "b:1": 2.0, "c:1": 4.0}, WEIGHTS, 3).output == pytest.approx(1.9)


def test_a_mean_of_lists_is_taken_element_by_element():
    outputs = {"a:1": [[1.0, 0.0]], "b:1": [[0.0, 1.0]]}
    combined = combine("mean", outputs, {"a:1": 3.0, "b:1": 1.0}, 2)
    assert combined == Combined([[0.75, 0.25]], 0.0)


@pytest.mark.parametrize(("other", "agreeing"), [(104.0, 1.0), (110.3, 1.0), (112.0, 0.0)])
def test_numbers_agree_within_five_percent_of_the_answer(other, agreeing):
    combined = combine("mean", {"a:1": 100.0, "b:1": other}, {}, 2)
    assert combined.confidence == agreeing


def test_near_zero_numbers_agree_within_a_twentieth():
    assert combine("mean", {"a:1": 0.0, "b:1": 0.09}, {}, 2).confidence == 1.0
    assert combine("mean", {"a:1": 0.0, "b:1": 0.11}, {}, 2).confidence == 0.0


@pytest.mark.parametrize("wrong", [math.nan, math.inf, 10**400])
def test_an_output_that_is_no_finite_number_counts_as_missing(wrong):
    assert combine("mean", {"a:1": wrong, "b:1": 3.0}, WEIGHTS, 2) == Combined(3.0, 0.5)


def test_a_list_with_nan_counts_as_missing():
    assert combine("mean", {"a:1": [math.nan, 0.0], "b:1": [3.0, 4.0]}, WEIGHTS, 2) == Combined([3.0, 4.0], 0.5)


@pytest.mark.parametrize(
    "outputs",
    [
        {"a:1": [1.0], "b:1": [1.0, 2.0]},
        {"a:1": 1.0, "b:1": [1.0]},
        {"a:1": "cat", "b:1": "dog"},
        {"a:1": math.nan, "b:1": math.inf},
        {"a:1": [[1.0], [1.0, 2.0]], "b:1": None},
    ],
)
def test_a_mean_of_what_has_no_mean_is_refused(outputs):
    with pytest.raises(ModelFailed, match="use `vote` for labels"):
        combine("mean", outputs, WEIGHTS, 2)


def test_nothing_to_combine_is_refused():
    with pytest.raises(ModelFailed, match="default output"):
        combine("vote", {}, WEIGHTS, 2)


def test_an_unknown_combiner_is_answered_with_those_that_exist():
    with pytest.raises(UnknownName, match="use one of mean, vote"):
        combine("median", {"a:1": 1}, WEIGHTS, 1)
