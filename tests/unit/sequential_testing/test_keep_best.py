"""Which candidate is retired."""

import random

from clipper_stream.sequential_testing.keep_best import worst
from clipper_stream.sequential_testing.score_sums import Score, ScoreSums

CONFIDENCE = 0.95


def losses(**rates):
    draw = random.Random(11)
    found = {}
    for name, rate in rates.items():
        sums = found[f"{name}:1"] = ScoreSums(0.0)
        for _ in range(600):
            loss = float(draw.random() < rate)
            sums.add(0, Score(1.0, loss, loss))
    return found


def test_the_worst_is_retired_when_enough_others_are_better_for_sure():
    found = worst(losses(a=0.1, b=0.12, c=0.5), 2, CONFIDENCE)
    assert found.model == "c:1"
    assert found.numbers["feedbacks"] == 600
    assert found.numbers["lower"] <= found.numbers["loss"] <= found.numbers["upper"]
    assert set(found.numbers["better"]) == {"a:1", "b:1"}
    assert all(upper < found.numbers["lower"] for upper in found.numbers["better"].values())


def test_nobody_is_retired_while_too_few_others_are_better():
    assert worst(losses(a=0.1, b=0.5, c=0.5), 2, CONFIDENCE) is None


def test_nobody_is_retired_of_equals():
    assert worst(losses(a=0.3, b=0.3, c=0.3), 1, CONFIDENCE) is None


def test_as_many_as_are_to_be_kept_are_never_retired():
    assert worst(losses(a=0.0, b=1.0), 2, CONFIDENCE) is None
    assert worst({}, 1, CONFIDENCE) is None


def test_a_candidate_about_which_nothing_is_known_is_neither_retired_nor_better():
    known = losses(a=0.0, b=1.0)
    assert worst({**known, "new:1": ScoreSums(0.0)}, 2, CONFIDENCE) is None
