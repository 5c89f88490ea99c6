"""What a run of the demo records, and what its result says of it."""

import asyncio
import json

import msgspec
import pytest
from builders.metrics import served
from unit.demo.fabricated import MODELS, PLAN, answer_to, begun_recorder, fabricate

from clipper_agents.demo.result import problems
from clipper_agents.demo.run_recorder import UNANSWERED, DemoSample, scrape_all
from clipper_agents.observability.metrics import BatchMetrics, HostMetrics, RouterMetrics
from clipper_topics.prediction import Prediction


# --- records --------------------------------------------------------------------------------------------------------
def test_the_flag_exists_from_before_the_first_query_of_the_failure_to_the_last(tmp_path):
    flag, states = tmp_path / "broken", []
    recorder = begun_recorder(flag)
    for count in range(1, PLAN.queries + 1):
        recorder.releasing(count)
        states.append(flag.exists())
    assert states == [False] * 100 + [True] * 100 + [False] * 200


def test_live_percentiles_are_about_the_latest_queries_and_an_answer_is_recorded_where_it_is_a_digit():
    recorder = begun_recorder()
    assert asyncio.run(recorder.sample()).p50_ms is None
    for query, latency_s in enumerate((0.010, 0.020, 0.030)):
        recorder.run.ledger.sent(query, began_s=1.0, now_s=1.0)
        recorder.run.ledger.answered(query, 1.0 + latency_s, reason=None)
    now = asyncio.run(recorder.sample())
    assert (now.sent, now.answered, round(now.p50_ms)) == (3, 3, 20)
    assert recorder.samples[-1] is now
    for query, output in enumerate([-1, None, "x", 11, 4]):
        recorder.answered(query, Prediction(query_id="", application="digits", output=output))
    recorder.answered(7, answer_to(recorder.run.script, 7))
    label = recorder.run.script.labels[7]
    assert recorder.digits[:9].tolist() == [*[UNANSWERED] * 4, 4, UNANSWERED, UNANSWERED, label, UNANSWERED]
    assert {ref: digits[7] for ref, digits in recorder.model_digits.items()} == {model.ref: label for model in MODELS}


def test_a_sample_joins_the_metrics_of_all_processes_and_leaves_out_one_that_is_gone():
    router, host = RouterMetrics(), HostMetrics()
    router.set_selection_weights({("digits-exp3", "svm:1"): 0.75, ("digits-exp3", "knn:1"): 0.25})
    router.count_cache("svm:1", lookups=10, hits=3)
    router.observe_predictions("digits-exp3", "default", "late", [0.1])
    router.count_feedback("applied", 4)
    ports = [served(router), served(host), 1]
    samples = []
    for rows in (2, 5):
        times = dict(waited_s=0.0, latency_s=0.001, took_s=0.002)
        BatchMetrics(host, "svm", "1").batch(rows=rows, failed=0, raised=False, limit_rows=9, **times)
        samples.append(DemoSample(metrics=scrape_all(ports), at_s=2.0, sent=9, answered=7, feedback_sent=5))
    earlier, sample = samples
    assert (sample.weights("exp3"), sample.weights("exp4")) == ({"svm:1": 0.75, "knn:1": 0.25}, {})
    assert (sample.cache, sample.defaults, sample.feedback) == ({"lookups": 10, "hits": 3}, 1, {"applied": 4})
    assert sample.batches("svm:1") == {"mean": 3.5, "max": 8.0, "limit_final": 9.0}
    assert sample.batches("svm:1", since=earlier)["mean"] == 5.0
    assert sample.batches("knn:1") == {"mean": 0.0, "max": 0.0, "limit_final": 0.0}


# --- the result -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def result():
    return fabricate()[1]


def test_errors_are_counted_by_phase_for_applications_and_for_models_by_the_ensembles_log(result):
    errors, good = result.policies["exp3"], result.single_models["good:1"]
    phases = ("before", "failed", "restored")
    assert [errors[f"queries_{phase}"] for phase in phases] == [50, 50, 100]
    assert errors["error_before"] == pytest.approx(0.1)  # of its even queries one in ten is wrong
    low, high = errors["interval_before"]
    assert low < 0.1 < high
    assert [good[f"error_{phase}"] for phase in phases] == [0.0, 1.0, 0.0]
    assert good["queries_failed"] == 50


def test_the_ensemble_is_compared_with_the_best_model_of_each_healthy_phase(result):
    compared = result.ensemble_minus_best_model
    assert compared["before"]["model"] == compared["restored"]["model"] == "good:1"
    assert compared["before"]["difference"] == pytest.approx(0.1)
    assert result.way_to_broken_model["exp4"] == pytest.approx(0.0)


def test_second_answers_are_counted_and_a_query_without_one_is_an_error_of_the_policy_but_of_no_model(result):
    _, gaps = fabricate(skipped={3, 5}, twice={1, 2, 7})  # queries of exp4, and both models were right about them
    assert (gaps.queries, gaps.answered, gaps.distinct_answered, len(problems(gaps))) == (400, 401, 398, 1)
    more = gaps.policies["exp4"]["error_before"] - result.policies["exp4"]["error_before"]
    assert more == pytest.approx(2 / 50)
    assert gaps.single_models["good:1"]["queries_before"] == 48


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"feedback": {"sent": 400, "applied": 398, "duplicates": 0, "unlearned": 2}}, []),  # of what nobody decided
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


def test_the_json_has_the_fields_that_are_promised(result):
    content = json.loads(msgspec.json.encode(result))
    assert content["feedback"] == {"sent": 400, "applied": 400, "duplicates": 0}
    assert set(content["latency_ms"]) == {"p50", "p90", "p99"}
    assert content["cache"] == {"lookups": 100, "hits": 7}
    assert content["batch"]["good:1"] == {"mean": 2.5, "max": 8.0, "limit_final": 7.0}
    promised = {"queries", "defaults", "throughput_per_s", "policies", "single_models", "committed", "seconds"}
    assert {*promised, "versions"} <= content.keys()
