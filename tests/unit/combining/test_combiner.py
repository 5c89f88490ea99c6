"""One answer from several outputs, and the share of the asked models that agree with it."""

from math import inf, nan

import pytest

from clipper_stream.combining.combiner import Combined, combine, renormalized_weights
from clipper_stream.errors import ModelFailed, UnknownName

WEIGHTS = {"a:1": 0.5, "b:1": 0.3, "c:1": 0.2}


@pytest.mark.parametrize(
    ("combiner", "outputs", "weights", "asked", "expected"),
    [
        # the label with the most weight, not the one with most models
        ("vote", ["cat", "dog", "dog"], {"a:1": 0.6, "b:1": 0.2, "c:1": 0.2}, 3, Combined("cat", 1 / 3)),
        # models that did not answer lower the confidence
        ("vote", [7, 7], WEIGHTS, 4, Combined(7, 0.5)),
        ("mean", [7.0, 7.0], WEIGHTS, 4, Combined(7.0, 0.5)),
        # a single output is the answer as it is
        ("vote", [{"x": [1]}], {}, 1, Combined({"x": [1]}, 1.0)),
        ("mean", [3], {}, 2, Combined(3, 0.5)),
        # a mean is weighted, and of lists taken element by element
        ("mean", [1.0, 2.0, 4.0], WEIGHTS, 3, Combined(pytest.approx(1.9), 0.0)),
        ("mean", [[[1.0, 0.0]], [[0.0, 1.0]]], {"a:1": 3.0, "b:1": 1.0}, 2, Combined([[0.75, 0.25]], 0.0)),
        # where no model that answered has weight, all count alike
        *(
            ("mean", outputs, weights, 2, Combined(mean, 0.0))
            for outputs, mean in (([1.0, 3.0], 2.0), ([[1.0], [3.0]], [2.0]))
            for weights in ({}, {"a:1": 0.0, "b:1": 0.0, "c:1": 1.0}, {"c:1": 1.0})
        ),
        # an output that is no finite number counts as missing
        *(("mean", [wrong, 3.0], WEIGHTS, 2, Combined(3.0, 0.5)) for wrong in (nan, inf, 10**400)),
        ("mean", [[nan, 0.0], [3.0, 4.0]], WEIGHTS, 2, Combined([3.0, 4.0], 0.5)),
        # numbers agree within five percent of the answer, and near zero within a twentieth
        *(("mean", [100.0, other], {}, 2, Combined((100.0 + other) / 2, 1.0)) for other in (104.0, 110.3)),
        ("mean", [100.0, 112.0], {}, 2, Combined(106.0, 0.0)),
        ("mean", [0.0, 0.09], {}, 2, Combined(0.045, 1.0)),
        ("mean", [0.0, 0.11], {}, 2, Combined(0.055, 0.0)),
    ],
)
def test_outputs_are_combined_and_the_share_of_models_that_agree_is_told(combiner, outputs, weights, asked, expected):
    assert combine(combiner, dict(zip(WEIGHTS, outputs, strict=False)), weights, asked) == expected


def test_a_tie_goes_to_the_earliest_candidate_whoever_answered_first():
    weights = {"a:1": 0.5, "b:1": 0.25, "c:1": 0.25}
    for order in (["c:1", "b:1", "a:1"], ["a:1", "b:1", "c:1"], ["b:1", "a:1", "c:1"]):
        assert combine("vote", {model: int(model == "a:1") for model in order}, weights, 3).output == 1


def test_a_model_without_a_weight_has_no_say_beside_one_that_has_and_shares_are_in_candidate_order():
    assert combine("vote", {"z:1": 1, "y:1": 1, "c:1": 2}, WEIGHTS, 3).output == 2
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
        (nan, nan, True),
    ],
)
def test_labels_of_any_kind_are_counted_together_when_equal(first, second, equal):
    assert combine("vote", {"a:1": first, "b:1": second}, WEIGHTS, 2).confidence == (1.0 if equal else 0.5)


@pytest.mark.parametrize(
    ("combiner", "outputs", "error", "words"),
    [
        ("mean", [[1.0], [1.0, 2.0]], ModelFailed, "use `vote`"),
        ("mean", [1.0, [1.0]], ModelFailed, "use `vote`"),
        ("mean", ["cat", "dog"], ModelFailed, "use `vote`"),
        ("mean", [nan, inf], ModelFailed, "use `vote`"),
        ("mean", [[[1.0], [1.0, 2.0]], None], ModelFailed, "use `vote`"),
        ("vote", [], ModelFailed, "default output"),
        ("median", [1], UnknownName, "use one of mean, vote"),
    ],
)
def test_what_cannot_be_combined_is_refused(combiner, outputs, error, words):
    with pytest.raises(error, match=words):
        combine(combiner, dict(zip(WEIGHTS, outputs, strict=False)), WEIGHTS, 2)
