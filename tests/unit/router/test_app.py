"""The router process is built before anything starts, and says where its inputs are read on."""

from types import SimpleNamespace

from faust.types import TP

from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.app import RouterProcess
from clipper_agents.router.pipeline import UNKNOWN_APPLICATION
from clipper_agents.settings.load import WorkerSettings
from clipper_agents.settings.sections import RouterSection
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection


async def test_every_part_is_built_without_a_broker(tmp_path):
    place = {"catalogue": Catalogue(), "data_dir": tmp_path / "router"}
    settings = WorkerSettings(kafka=KafkaConnection("127.0.0.1:1"), instance="r", section=RouterSection(), **place)
    process = RouterProcess(settings, RouterMetrics(), 9100)
    await process.app.kafka_producer.stop()
    assert [*process.app.agents] == ["route", "gather", "learn"]
    assert process._pipeline._sender is process._sender


async def test_a_router_that_starts_says_what_it_waits_for():
    app = SimpleNamespace(generation=-1, unready=lambda: ["partition 1 is not recovered yet"])
    router = SimpleNamespace(app=app, _colocated=SimpleNamespace(loading=["svm:1"]))
    assert RouterProcess._unready(router) == ["partition 1 is not recovered yet", "model svm:1 is loading"]
    router.app = SimpleNamespace(generation=0, unready=list)
    assert RouterProcess._unready(router) == [], "it goes on answering while a model that came later is loaded"


async def test_objectives_and_weights_are_of_registered_applications_and_end_with_them():
    declared = {"a": (["svm:1"], 0.1), "b": ([], None)}
    applications = {
        name: SimpleNamespace(name=name, refs=refs, objective_s=objective_s)
        for name, (refs, objective_s) in declared.items()
    }
    router = SimpleNamespace(
        metrics=RouterMetrics(),
        _registry=SimpleNamespace(applications=applications),
        _selection=SimpleNamespace(prepare=lambda *_: SimpleNamespace(weights={"svm:1": 1.0})),
    )
    value = router.metrics.registry.get_sample_value
    for name in ("a", "b", UNKNOWN_APPLICATION):
        router.metrics.counter("clipper_queries_total", name).inc()
    for weight, objectives_s, counts in ((1.0, [0.1, None], [1.0] * 3), (None, [None, None], [None, 1.0, 1.0])):
        RouterProcess._report_applications(router)
        assert value("clipper_selection_weight", {"application": "a", "model": "svm:1"}) == weight
        assert [value("clipper_objective_seconds", {"application": name}) for name in "ab"] == objectives_s
        names = ("a", "b", UNKNOWN_APPLICATION)
        assert [value("clipper_queries_total", {"application": name}) for name in names] == counts
        applications.pop("a", None)


async def test_feedback_is_read_from_the_beginning_where_nothing_was_learned():
    """Another router of the same name may have committed feedback that is in no row that was read here."""
    router = SimpleNamespace(
        _settings=SimpleNamespace(catalogue=SimpleNamespace(feedback="feedback")),
        _selection=SimpleNamespace(position={0: 41, 1: -1}.__getitem__),
        app=SimpleNamespace(owned_partitions=lambda topic: [0, 1]),
    )
    assert await RouterProcess._positions(router) == {TP("feedback", 0): 42, TP("feedback", 1): 0}
