from clipper_agents.demo.samples import DemoSample, scrape_all
from clipper_agents.observability.exposition import serve_metrics
from clipper_agents.observability.metrics import HostMetrics, RouterMetrics


def test_a_sample_joins_the_metrics_of_all_processes_and_leaves_out_one_that_is_gone():
    router, host = RouterMetrics(), HostMetrics()
    router.set_selection_weights("digits-exp3", {"svm:1": 0.75, "knn:1": 0.25})
    router.count_cache("svm:1", lookups=10, hits=3)
    router.observe_predictions("digits-exp3", "default", "late", [0.1])
    router.count_feedback("applied", 4)
    host.observe_batch("svm", "1", rows=2, latency_s=0.001)
    host.observe_batch("svm", "1", rows=5, latency_s=0.001)
    host.set_batch_limit("svm", "1", 9)
    ports = [serve_metrics(router.registry), serve_metrics(host.registry), 1]
    metrics = scrape_all(ports)
    sample = DemoSample(metrics=metrics, at_s=2.0, sent=9, answered=7, feedback_sent=5)
    assert sample.weights("exp3") == {"svm:1": 0.75, "knn:1": 0.25}
    assert sample.weights("exp4") == {}
    assert sample.hit_ratio == 0.3
    assert sample.defaults == 1
    assert sample.feedback == {"applied": 4}
    assert sample.learned == 4
    batches = sample.batches("svm:1")
    assert (batches.mean, batches.largest, batches.limit) == (3.5, 8.0, 9.0)
    assert sample.batches("knn:1").mean == 0.0
