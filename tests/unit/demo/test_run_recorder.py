import asyncio

from builders.metrics import served
from unit.demo.fabricated import MODELS, PLAN, answer_to, begun_recorder

from clipper_agents.demo.data import draw_traffic, load_digits
from clipper_agents.demo.run import MAX_OPEN, load_plan
from clipper_agents.demo.run_recorder import UNANSWERED, DemoSample, scrape_all
from clipper_agents.observability.metrics import BatchMetrics, HostMetrics, RouterMetrics
from clipper_topics.prediction import Prediction


def test_no_more_queries_are_open_than_a_busy_machine_can_bear():
    load = load_plan(PLAN, draw_traffic(load_digits(0), 1, 0))
    assert (load.mode, load.most_outstanding) == ("bounded", MAX_OPEN)


def test_the_flag_exists_from_before_the_first_query_of_the_failure_to_the_last(tmp_path):
    flag, states = tmp_path / "broken", []
    recorder = begun_recorder(flag)
    for count in range(1, PLAN.queries + 1):
        recorder.releasing(count)
        states.append(flag.exists())
    assert states == [False] * 100 + [True] * 100 + [False] * 200


def test_live_percentiles_are_about_the_latest_queries():
    recorder = begun_recorder()
    assert asyncio.run(recorder.sample()).p50_ms is None
    for query, latency_s in enumerate((0.010, 0.020, 0.030)):
        recorder.run.ledger.sent(query, began_s=1.0, now_s=1.0)
        recorder.run.ledger.answered(query, 1.0 + latency_s, reason=None)
    now = asyncio.run(recorder.sample())
    assert (now.sent, now.answered, round(now.p50_ms)) == (3, 3, 20)
    assert recorder.samples[-1] is now


def test_an_answer_is_recorded_with_its_models_where_it_is_a_digit():
    recorder = begun_recorder()
    for query, output in enumerate([-1, None, "x", 11, 4]):
        recorder.answered(query, Prediction(query_id="", application="digits", output=output))
    assert recorder.digits[:5].tolist() == [UNANSWERED] * 4 + [4]
    recorder.answered(7, answer_to(recorder.run.script, 7))
    label = recorder.run.script.labels[7]
    assert [recorder.digits[at] for at in (6, 7, 8)] == [UNANSWERED, label, UNANSWERED]
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
