import hashlib
from dataclasses import replace

import numpy as np
import pytest

from clipper_agents import exits
from clipper_agents.cli.main import main
from clipper_agents.demo.data import TRAIN_ROWS, Digits, draw_traffic, load_digits
from clipper_agents.demo.models import TRUSTED, FaultyModel, best_of, train
from clipper_agents.demo.run import demo_settings, progress_line
from clipper_agents.demo.scenario import MAX_OPEN, POLICIES, application_of, demo_load
from clipper_loadgen.run import LoadRun
from clipper_loadgen.script import write_script
from clipper_stream.models.registry import load_model
from clipper_topics import codec

pytest.importorskip("skops")


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits(seed=0)


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    return train(digits, tmp_path_factory.mktemp("models"), seed=0)


def loaded(model):
    return load_model("sklearn", str(model.path), model.sha256, {"trusted": list(TRUSTED)})


def test_the_three_parts_are_the_whole_data_set_share_no_row_and_traffic_has_every_picture_in_turn(digits):
    parts = (digits.train, digits.validation, digits.traffic)
    assert [len(part.labels) for part in parts] == [700, 200, 1797 - TRAIN_ROWS]
    assert len(np.unique(np.concatenate([part.rows for part in parts]), axis=0)) == 1797
    assert np.array_equal(load_digits(0).traffic.rows, digits.traffic.rows)
    assert not np.array_equal(load_digits(1).traffic.labels, digits.traffic.labels)
    asked = draw_traffic(digits, 2_000, seed=0)
    assert len(np.unique(asked.rows, axis=0)) == 2_000
    assert np.array_equal(asked.rows, draw_traffic(digits, 2_000, seed=0).rows)
    pool = len(digits.traffic.labels)
    assert sorted(asked.labels[:pool].tolist()) == sorted(digits.traffic.labels.tolist())


def test_five_models_err_at_different_rates_and_the_best_leads_on_the_traffic_too(trained, digits):
    asked, errors = draw_traffic(digits, 1_500, seed=0), {}
    for model in trained:
        assert hashlib.sha256(model.path.read_bytes()).hexdigest() == model.sha256
        found = np.asarray(loaded(model).predict_batch(asked.rows.astype(np.float32)))
        assert set(found.tolist()) <= set(range(10))
        errors[model] = float((found != asked.labels).mean())
    validated = {model.name: model.validation_error for model in trained}
    assert list(validated) == ["svm", "neighbors", "bayes", "logistic", "forest"]
    assert all(0.01 < error < 0.2 for error in validated.values())
    assert len(set(validated.values())) == 5
    assert min(errors, key=errors.__getitem__) is best_of(trained)
    assert best_of(trained).validation_error == min(validated.values())


def test_the_model_that_fails_is_wrong_about_everything_while_its_flag_exists(trained, digits, tmp_path):
    model, flag = trained[-1], tmp_path / "broken"  # the one with types that must be trusted
    manifest = model.manifest(flag)
    faulty = load_model(manifest.runtime, manifest.uri, manifest.sha256, manifest.parameters)
    assert isinstance(faulty, FaultyModel)
    assert manifest.ref == model.manifest().ref
    rows = draw_traffic(digits, 200, seed=0).rows.astype(np.float32)
    whole = np.asarray(loaded(model).predict_batch(rows))
    assert np.array_equal(faulty.predict_batch(rows), whole)
    flag.touch()
    broken = np.asarray(faulty.predict_batch(rows))
    assert not (broken == whole).any()
    assert set(broken.tolist()) == set(range(10))
    flag.unlink()
    assert np.array_equal(faulty.predict_batch(rows), whole)


def test_settings_declare_an_application_a_policy_and_let_the_best_model_break(trained, tmp_path):
    overrides = {"kafka.bootstrap": "h:1", "router.data_dir": str(tmp_path / "router")}
    settings = demo_settings(trained, tmp_path / "broken", 0, {}, overrides)
    assert [application.policy.name for application in settings.applications] == list(POLICIES)
    assert all(application.models == [model.ref for model in trained] for application in settings.applications)
    assert [model.ref for model in settings.models if model.runtime == "python"] == [best_of(trained).ref]
    assert settings.router.data_dir == str(tmp_path / "router")


# --- queries --------------------------------------------------------------------------------------------------------
LOAD = demo_load(draw_traffic(load_digits(0), 400, 0), rate_per_s=250.0, seed=0)


def demo_script(run="0123abcd"):
    """The queries of a demo, encoded for two partitions."""
    return write_script(LOAD, partitions=2, run=run)


@pytest.mark.parametrize(("option", "value"), [("--queries", "10"), ("--rate", "0"), ("--seed", "-1")])
def test_a_run_that_says_nothing_is_refused(capsys, option, value):
    assert main(["demo", option, value]) == exits.USAGE
    assert f"{value} is not in the range" in capsys.readouterr().err


def test_queries_alternate_a_tenth_repeats_an_input_and_only_so_many_are_open_in_each_run_of_a_seed():
    script, again = demo_script(), demo_script("ffffffff")
    assert (LOAD.mode, LOAD.most_outstanding) == ("bounded", MAX_OPEN)
    queries = [codec.queries.decode(script.record(number)[2]) for number in range(400)]
    assert [query.application for query in queries] == [*map(application_of, POLICIES)] * 200
    assert {len(query.input) for query in queries} == {64}
    assert np.allclose(np.diff(script.times_s), 1 / 250)
    labels = dict(zip(script.bodies, script.labels, strict=True))
    assert [labels[body] for body in script.bodies] == script.labels
    assert len(labels) == len(set(script.rows))
    assert 0.03 < 1 - len(labels) / 400 < 0.17  # five standard deviations of a tenth of 400
    assert (again.bodies, again.delays_s) == (script.bodies, script.delays_s)
    assert again.query_id(0) != script.query_id(0)


def test_a_line_says_how_far_a_run_is_and_how_late_the_latest_answers_were():
    run = LoadRun(LOAD, replace(demo_script(), delays_s=None), None, lambda: 0.0)
    assert progress_line(run).startswith("best model healthy: 0/400 answered, latest p50=nan")
    for query in range(150):
        run.ledger.sent(query, began_s=1.0, now_s=1.0)
    for query, latency_s in enumerate((0.010, 0.020, 0.030)):
        run.ledger.answered(query, 1.0 + latency_s, reason="late" if query else None)
    assert progress_line(run) == "best model failed: 3/400 answered, latest p50=20ms p99=30ms, defaults=2"
