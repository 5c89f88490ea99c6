import json

import msgspec
import numpy as np
import pytest
from builders.demo import PLAN, fabricate

from clipper_agents.demo.result import problems
from clipper_stream.intervals import mean_difference, wilson


@pytest.fixture(scope="module")
def run():
    return fabricate()


# --- intervals ---------------------------------------------------------------------------------------------------
def test_a_paired_difference_is_surer_than_two_errors_apart():
    rng = np.random.default_rng(0)
    hard = rng.random(2_000) < 0.05
    first, second = hard | (rng.random(2_000) < 0.01), hard.copy()
    difference, (low, high) = mean_difference(first.astype(float) - second)
    assert low < difference < high
    assert high - low < 0.5 * (wilson(int(second.sum()), 2_000)[1] - wilson(int(second.sum()), 2_000)[0])


# --- errors by phase ---------------------------------------------------------------------------------------------
def test_errors_are_counted_by_phase_and_application(run):
    errors = run.result.policies["exp3"]
    assert errors["queries_before"] == errors["queries_failed"] == 50
    assert errors["queries_restored"] == 100
    assert errors["error_before"] == pytest.approx(0.1)  # of its even queries one in ten is wrong
    low, high = errors["interval_before"]
    assert low < 0.1 < high


def test_single_models_are_judged_by_the_ensembles_log(run):
    good = run.result.single_models["good:1"]
    assert [good[f"error_{phase}"] for phase in ("before", "failed", "restored")] == [0.0, 1.0, 0.0]
    assert good["queries_failed"] == 50


def test_the_ensemble_is_compared_with_the_best_model_of_each_healthy_phase(run):
    compared = run.result.ensemble_minus_best_model
    assert compared["before"]["model"] == compared["restored"]["model"] == "good:1"
    assert compared["before"]["difference"] == pytest.approx(0.1)
    assert run.result.way_to_broken_model["exp4"] == pytest.approx(0.0)


def test_a_query_without_an_answer_is_an_error_of_the_policy_but_of_no_model():
    # queries 3 and 5 are exp4's, and both models were right about them
    gaps = fabricate(skipped=frozenset({3, 5}))
    whole = fabricate()
    more = gaps.result.policies["exp4"]["error_before"] - whole.result.policies["exp4"]["error_before"]
    assert more == pytest.approx(2 / 50)
    assert gaps.result.single_models["good:1"]["queries_before"] == 48


# --- the verdict -------------------------------------------------------------------------------------------------
def test_a_whole_run_has_no_problems(run):
    assert problems(run.result) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"answered": 401}, "answers"),
        ({"distinct_answered": 399}, "answers"),
        ({"feedback": {"sent": 400, "applied": 399, "duplicates": 1}}, "feedback"),
        ({"committed": False, "uncommitted": {"clipper.queries": 2}}, "offsets"),
        ({"verified": {"equal": False, "rows": 4, "feedbacks": 9, "seconds": 0.1}}, "verification"),
    ],
)
def test_each_thing_that_does_not_hold_is_said_in_a_line(run, change, word):
    (line,) = problems(msgspec.structs.replace(run.result, **change))
    assert line.startswith(word)


def test_second_answers_and_missing_ones_are_counted():
    result = fabricate(skipped=frozenset({8}), twice=frozenset({1, 2})).result
    assert (result.queries, result.answered, result.distinct_answered) == (400, 401, 399)
    assert len(problems(result)) == 1


def test_feedback_about_an_answer_that_nobody_decided_counts_as_dealt_with(run):
    feedback = {"sent": 400, "applied": 398, "duplicates": 0, "unlearned": 2}
    assert problems(msgspec.structs.replace(run.result, feedback=feedback)) == []


def test_the_json_has_the_fields_that_are_promised(run):
    content = json.loads(msgspec.json.encode(run.result))
    assert content["queries"] == PLAN.queries
    assert content["feedback"] == {"sent": 400, "applied": 400, "duplicates": 0}
    assert set(content["latency_ms"]) == {"p50", "p90", "p99"}
    assert content["cache"] == {"lookups": 100, "hits": 7}
    assert content["batch"]["good:1"] == {"mean": 2.5, "max": 8.0, "limit_final": 7.0}
    assert {"defaults", "throughput_per_s", "policies", "single_models", "committed", "seconds", "versions"} <= set(
        content
    )
