import json

import msgspec
import numpy as np
import pytest
from unit.demo.fabricated import PLAN, fabricate

from clipper_agents.demo.result import problems
from clipper_stream.intervals import mean_difference, wilson


@pytest.fixture(scope="module")
def result():
    return fabricate()[1]


def test_a_paired_difference_is_surer_than_two_errors_apart():
    rng = np.random.default_rng(0)
    hard = rng.random(2_000) < 0.05
    first, second = hard | (rng.random(2_000) < 0.01), hard.copy()
    difference, (low, high) = mean_difference(first.astype(float) - second)
    assert low < difference < high
    apart_low, apart_high = wilson(int(second.sum()), 2_000)
    assert high - low < 0.5 * (apart_high - apart_low)


# --- errors by phase ---------------------------------------------------------------------------------------------
def test_errors_are_counted_by_phase_and_application(result):
    errors = result.policies["exp3"]
    assert [errors[f"queries_{phase}"] for phase in ("before", "failed", "restored")] == [50, 50, 100]
    assert errors["error_before"] == pytest.approx(0.1)  # of its even queries one in ten is wrong
    low, high = errors["interval_before"]
    assert low < 0.1 < high


def test_single_models_are_judged_by_the_ensembles_log(result):
    good = result.single_models["good:1"]
    assert [good[f"error_{phase}"] for phase in ("before", "failed", "restored")] == [0.0, 1.0, 0.0]
    assert good["queries_failed"] == 50


def test_the_ensemble_is_compared_with_the_best_model_of_each_healthy_phase(result):
    compared = result.ensemble_minus_best_model
    assert compared["before"]["model"] == compared["restored"]["model"] == "good:1"
    assert compared["before"]["difference"] == pytest.approx(0.1)
    assert result.way_to_broken_model["exp4"] == pytest.approx(0.0)


def test_a_query_without_an_answer_is_an_error_of_the_policy_but_of_no_model(result):
    _, gaps = fabricate(skipped={3, 5})  # queries of exp4, and both models were right about them
    more = gaps.policies["exp4"]["error_before"] - result.policies["exp4"]["error_before"]
    assert more == pytest.approx(2 / 50)
    assert gaps.single_models["good:1"]["queries_before"] == 48


# --- the verdict -------------------------------------------------------------------------------------------------
UNLEARNED = {"sent": 400, "applied": 398, "duplicates": 0, "unlearned": 2}
"""Feedback about an answer that nobody decided counts as dealt with."""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"feedback": UNLEARNED}, []),
        ({"answered": 401}, ["answers"]),
        ({"distinct_answered": 399}, ["answers"]),
        ({"feedback": {"sent": 400, "applied": 399, "duplicates": 1}}, ["feedback"]),
        ({"committed": False, "uncommitted": {"clipper.queries": 2}}, ["offsets"]),
        ({"verified": {"equal": False, "rows": 4, "feedbacks": 9, "seconds": 0.1}}, ["verification"]),
    ],
)
def test_each_thing_that_does_not_hold_is_said_in_a_line(result, change, words):
    lines = problems(msgspec.structs.replace(result, **change))
    assert [line[: len(word)] for line, word in zip(lines, words, strict=True)] == words


def test_second_answers_and_missing_ones_are_counted():
    _, result = fabricate(skipped={8}, twice={1, 2})
    assert (result.queries, result.answered, result.distinct_answered) == (400, 401, 399)
    assert len(problems(result)) == 1


def test_the_json_has_the_fields_that_are_promised(result):
    content = json.loads(msgspec.json.encode(result))
    assert content["queries"] == PLAN.queries
    assert content["feedback"] == {"sent": 400, "applied": 400, "duplicates": 0}
    assert set(content["latency_ms"]) == {"p50", "p90", "p99"}
    assert content["cache"] == {"lookups": 100, "hits": 7}
    assert content["batch"]["good:1"] == {"mean": 2.5, "max": 8.0, "limit_final": 7.0}
    promised = {"defaults", "throughput_per_s", "policies", "single_models", "committed", "seconds", "versions"}
    assert promised <= content.keys()
