import asyncio

from builders.demo import MODELS, PLAN, answer_to, begun_run
from builders.metrics import served

from clipper_agents.demo.run import MAX_OPEN
from clipper_agents.demo.run_recorder import UNANSWERED, DemoSample, scrape_all
from clipper_agents.observability.metrics import BatchMetrics, HostMetrics, RouterMetrics
from clipper_topics.prediction import Prediction


def said(query_id, output):
    return Prediction(query_id=query_id, application="digits", output=output)


def test_no_more_queries_are_open_than_a_busy_machine_can_bear():
    run, _ = begun_run()
    run._release(PLAN.queries)
    assert run._gate._released == MAX_OPEN
    run._on_answers([answer_to(run, query) for query in range(5)], now_s=1.0)
    assert run._gate._released == MAX_OPEN + 5


def test_the_flag_exists_from_before_the_first_query_of_the_failure_to_the_last(tmp_path):
    flag, states = tmp_path / "broken", []
    run, _ = begun_run(flag)
    run.ledger.answered_count = PLAN.queries
    for count in range(1, PLAN.queries + 1):
        run._release(count)
        states.append(flag.exists())
    assert states == [False] * 100 + [True] * 100 + [False] * 200


def test_live_percentiles_are_about_the_latest_queries():
    run, recorder = begun_run()
    assert asyncio.run(recorder.sample()).p50_ms is None
    for query, latency_s in enumerate((0.010, 0.020, 0.030)):
        run.ledger.sent(query, began_s=1.0, now_s=1.0)
        run._on_answers([answer_to(run, query)], 1.0 + latency_s)
    now = asyncio.run(recorder.sample())
    assert (now.sent, now.answered, round(now.p50_ms)) == (3, 3, 20)
    assert recorder.samples[-1] is now


def test_each_answer_is_recorded_with_its_models_and_a_second_one_is_not():
    run, recorder = begun_run()
    first = answer_to(run, 3)
    run._on_answers([first, said(first.query_id, 9), said("0-somebody-else", 1)], 1.0)
    label = run.script.labels[3]
    assert recorder.digits[3] == label
    assert {ref: digits[3] for ref, digits in recorder.model_digits.items()} == {model.ref: label for model in MODELS}
    assert (recorder.digits[:3] == UNANSWERED).all()
    assert run.ledger.duplicates.total() == 1


def test_what_is_no_digit_is_no_answer():
    run, recorder = begun_run()
    outputs = [-1, None, "x", 11, 4]
    run._on_answers([said(run.script.query_id(at), output) for at, output in enumerate(outputs)], 1.0)
    assert recorder.digits[:5].tolist() == [UNANSWERED] * 4 + [4]


def test_a_sample_joins_the_metrics_of_all_processes_and_leaves_out_one_that_is_gone():
    router, host = RouterMetrics(), HostMetrics()
    router.set_selection_weights({("digits-exp3", "svm:1"): 0.75, ("digits-exp3", "knn:1"): 0.25})
    router.count_cache("svm:1", lookups=10, hits=3)
    router.observe_predictions("digits-exp3", "default", "late", [0.1])
    router.count_feedback("applied", 4)
    ports = [served(router), served(host), 1]
    samples = []
    for rows in (2, 5):
        BatchMetrics(host, "svm", "1").batch(
            rows=rows, failed=0, raised=False, waited_s=0.0, latency_s=0.001, took_s=0.002, limit_rows=9
        )
        samples.append(DemoSample(metrics=scrape_all(ports), at_s=2.0, sent=9, answered=7, feedback_sent=5))
    earlier, sample = samples
    assert sample.weights("exp3") == {"svm:1": 0.75, "knn:1": 0.25}
    assert sample.weights("exp4") == {}
    assert sample.cache == {"lookups": 10, "hits": 3}
    assert sample.defaults == 1
    assert sample.feedback == {"applied": 4}
    assert sample.batches("svm:1") == {"mean": 3.5, "max": 8.0, "limit_final": 9.0}
    assert sample.batches("svm:1", since=earlier)["mean"] == 5.0
    assert sample.batches("knn:1") == {"mean": 0.0, "max": 0.0, "limit_final": 0.0}
