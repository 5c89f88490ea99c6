import numpy as np
import pytest

from clipper_agents.demo.data import draw_traffic, load_digits
from clipper_agents.demo.fault import FaultSwitch, FaultyModel
from clipper_agents.demo.manifests import demo_settings, model_manifest
from clipper_agents.demo.models import TrainedModel
from clipper_agents.demo.plan import POLICIES, DemoPlan
from clipper_stream.models.registry import load_model

PLAN = DemoPlan(queries=400)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> TrainedModel:
    skops_io = pytest.importorskip("skops.io")
    from hashlib import sha256

    from sklearn.naive_bayes import GaussianNB

    digits = load_digits(0)
    path = tmp_path_factory.mktemp("models") / "plain.skops"
    skops_io.dump(GaussianNB(var_smoothing=0.1).fit(digits.train.rows, digits.train.labels), path)
    return TrainedModel("plain", "a plain model", path, sha256(path.read_bytes()).hexdigest(), 0.2)


def test_a_model_is_wrong_about_everything_while_its_flag_exists(model, tmp_path):
    flag = tmp_path / "broken"
    rows = draw_traffic(load_digits(0), 200, seed=0).rows
    whole = np.asarray(load_model("sklearn", str(model.path), model.sha256).predict_batch(rows))
    faulty = FaultyModel(str(model.path), model.sha256, str(flag))
    assert np.array_equal(faulty.predict_batch(rows), whole)
    flag.touch()
    broken = np.asarray(faulty.predict_batch(rows))
    assert not (broken == whole).any()
    assert set(broken.tolist()) == set(range(10))
    flag.unlink()
    assert np.array_equal(faulty.predict_batch(rows), whole)


def test_the_manifest_of_the_model_that_fails_loads_as_one(model, tmp_path):
    manifest = model_manifest(model, tmp_path / "broken")
    loaded = load_model(manifest.runtime, manifest.uri, manifest.sha256, manifest.parameters)
    assert isinstance(loaded, FaultyModel)
    assert manifest.ref == model_manifest(model).ref


def test_the_flag_exists_from_the_first_query_of_the_failure_to_the_last(tmp_path):
    flag = tmp_path / "broken"
    fault, states = FaultSwitch(flag, PLAN), []
    for query in range(PLAN.queries):
        fault.before_query(query)
        states.append(flag.exists())
    assert states == [False] * 100 + [True] * 100 + [False] * 200


def test_settings_declare_an_application_a_policy_over_all_models(model, tmp_path):
    overrides = {"kafka.bootstrap": "h:1", "router.data_dir": str(tmp_path / "router")}
    settings = demo_settings(PLAN, [model], tmp_path / "broken", {}, overrides)
    assert [application.policy.name for application in settings.applications] == list(POLICIES)
    assert all(application.models == [model.ref] for application in settings.applications)
    assert settings.router.data_dir == str(tmp_path / "router")
