"""Which candidate is retired, by the same queries whoever was asked."""

import random

import pytest
from scipy.stats import binom

from clipper_stream.sequential_testing.keep_best import CandidateLosses


def asked_all(queries=600, **rates):
    """All candidates are asked each time."""
    draw, chances = random.Random(11), {f"{name}:1": 1.0 for name in rates}
    found = CandidateLosses(chances)
    for second in range(queries):
        losses = {f"{name}:1": float(draw.random() < rate) for name, rate in rates.items()}
        found.learn(found.decide(second, chances), losses, chances)
    return found


def asked_one(seed, shares, means, queries=6_000):
    """One candidate is asked each time, by shares and mean losses that change with the query."""
    draw, refs = random.Random(seed), ["a:1", "b:1"]
    found = CandidateLosses(refs)
    for number in range(queries):
        chances = shares(number)
        ref = draw.choices(refs, [chances[one] for one in refs])[0]
        loss = float(draw.random() < means(number)[ref])
        opened = found.decide(number // 20, {ref: chances[ref]})
        found.learn(opened, {ref: loss}, {ref: chances[ref]})
        if number % 200 == 199 and (worst := found.worst(1, 0.95)) is not None:
            return worst.model
    return None


def test_the_worst_is_retired_when_enough_others_are_better_for_sure():
    found = asked_all(a=0.1, b=0.12, c=0.5).worst(2, 0.95)
    assert found.model == "c:1"
    assert found.numbers["feedbacks"] == 600
    assert found.numbers["lower"] <= found.numbers["loss"] <= found.numbers["upper"]
    assert set(found.numbers["better"]) == {"a:1", "b:1"}
    assert all(upper < found.numbers["lower"] for upper in found.numbers["better"].values())


@pytest.mark.parametrize(
    ("rates", "kept"),
    [
        pytest.param({"a": 0.1, "b": 0.5, "c": 0.5}, 2, id="too few others are better"),
        pytest.param({"a": 0.3, "b": 0.3, "c": 0.3}, 1, id="all are equal"),
        pytest.param({"a": 0.0, "b": 1.0}, 2, id="as many as are to be kept"),
        pytest.param({}, 1, id="there is nobody"),
    ],
)
def test_nobody_is_retired_where(rates, kept):
    assert asked_all(**rates).worst(kept, 0.95) is None


@pytest.mark.parametrize(("at_bound", "retired"), [(0.04, "b:1"), (0.06, None)])
def test_nobody_is_retired_beside_losses_that_may_be_any_larger_ones(at_bound, retired):
    chances = {"a:1": 1.0, "b:1": 1.0}
    found = CandidateLosses(chances)
    for second in range(100):
        found.learn(found.decide(second, chances), {"a:1": 0.1, "b:1": 1.0}, chances, {"a:1": at_bound, "b:1": 1.0})
    worst = found.worst(1, 0.95)
    assert (worst and worst.model) == retired


def test_what_is_not_known_makes_no_candidate_better_or_retired():
    chances, found = {"a:1": 1.0, "b:1": 1.0}, CandidateLosses(["a:1", "b:1", "new:1"])
    for second in range(600):
        found.learn(found.decide(second, chances), {"a:1": 0.0, "b:1": 1.0}, chances)
    assert found.worst(1, 0.95).model == "b:1"
    assert found.worst(2, 0.95) is None, "of the newcomer nothing is known"
    silent = CandidateLosses(chances)
    for second in range(600):
        opened = silent.decide(second, chances, {"b:1"} if second % 2 else ())
        silent.learn(opened, {"a:1": 0.4, "b:1": 0.4}, chances)
    assert silent.worst(1, 0.95) is None
    assert silent.capital("b:1").upper(0.025) > 0.6


@pytest.mark.parametrize(
    ("share", "means", "retired"),
    [
        pytest.param(0.02, {"a:1": 0.1, "b:1": 0.8}, "b:1", id="seldom, by what it says"),
        pytest.param(
            0.001, {"a:1": 0.3, "b:1": 0.3}, None, id="more seldom than counts, as by a policy without a floor"
        ),
    ],
)
def test_one_that_is_asked_seldom_is_retired_or_not_wronged(share, means, retired):
    shares = {"a:1": 1.0 - share, "b:1": share}
    assert asked_one(1, lambda _: shares, lambda _: means, queries=20_000) == retired


@pytest.mark.parametrize("seeds", [5, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("better", [0.0, 0.05])
def test_shares_that_follow_the_difficulty_do_not_retire_the_better_one(better, seeds):
    """By its own losses a was retired in most of these: it is asked most where queries are hard."""

    def shares(number):
        return {"a:1": 0.9, "b:1": 0.1} if number < 3_000 else {"a:1": 0.1, "b:1": 0.9}

    def means(number):
        level = 0.6 if number < 3_000 else 0.1
        return {"a:1": level - better, "b:1": level}

    retired = [asked_one(seed, shares, means) for seed in range(seeds)]
    assert retired.count("a:1") <= binom.ppf(0.999, seeds, 0.025)
