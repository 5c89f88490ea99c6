import numpy as np
import pytest
from builders.logged_truth import MODELS, truth

from clipper_stream.evaluation.log.arrays import logged
from clipper_stream.evaluation.log.joint_propensity import audit_ratio_of, joint_propensity

PROBABILITIES = (0.6, 0.3, 0.1)


def test_the_audit_ratio_is_told_from_every_row():
    columns = truth(2_000, 1).logged(PROBABILITIES, audit_ratio=0.2)
    assert np.allclose(audit_ratio_of(columns), 0.2, rtol=0, atol=1e-12)


def test_all_candidates_are_asked_together_with_the_audit_ratio():
    columns = truth(2_000, 1).logged(PROBABILITIES, audit_ratio=0.2)
    joint = joint_propensity(columns, MODELS)
    audited = columns.asked.all(axis=1)
    assert np.allclose(joint[audited], 0.2, rtol=0, atol=1e-12)
    assert not joint[~audited].any()
    assert np.array_equal(joint_propensity(columns, ["knn:1"]), columns.propensity[:, 1])


def test_its_inverse_counts_all_decisions():
    # 1 / a on a share a of the rows: mean 1, variance (1 - a) / a; three standard errors
    rows, ratio = 20_000, 0.2
    joint = joint_propensity(truth(rows, 3).logged(PROBABILITIES, audit_ratio=ratio), MODELS[:2])
    mean = np.divide(1.0, joint, out=np.zeros(rows), where=joint > 0).mean()
    assert abs(mean - 1.0) < 3.0 * np.sqrt((1.0 - ratio) / ratio / rows)


def test_a_policy_that_is_sure_tells_the_ratio_by_its_audits():
    columns = logged([[1.0, 0.25], [1.0, 0.0]], np.zeros((2, 2)), served_propensity=1.0)
    assert audit_ratio_of(columns).tolist() == pytest.approx([0.25, np.nan], nan_ok=True)
    assert joint_propensity(columns, columns.models).tolist() == [0.25, 0.0]


def test_an_ensemble_asks_all_with_certainty():
    columns = truth(5, 1).whole()
    assert joint_propensity(columns, MODELS).tolist() == [1.0] * 5


def test_a_query_that_named_its_models_is_no_evidence_about_an_ensemble():
    columns = logged([[1.0, 1.0]], [[0.0, 1.0]], policies=("named",))
    assert joint_propensity(columns, columns.models).tolist() == [0.0]


def test_a_model_that_was_run_on_every_input_is_no_condition():
    columns = truth(2_000, 1).logged(PROBABILITIES, audit_ratio=0.2)
    wider = columns.with_model("new:1", np.zeros(2_000), np.ones(2_000))
    assert np.allclose(joint_propensity(wider, [*MODELS, "new:1"]), joint_propensity(columns, MODELS), atol=1e-12)
    assert np.array_equal(joint_propensity(wider, ["svm:1", "new:1"]), columns.propensity[:, 0])


def test_a_named_trial_is_a_factor():
    # an audit of two candidates at p = 0.5, a = 0.25, and a shadow of share 0.5
    columns = logged([[0.625, 0.625, 0.5]], [[0.0, 0.0, 0.0]], served=[[True, False, False]], served_propensity=0.5)
    assert joint_propensity(columns, columns.models, trials=["m2:1"]).tolist() == pytest.approx([0.125])


def test_a_trial_that_was_not_named_is_noticed():
    columns = logged([[0.625, 0.625, 0.5]], [[0.0, 0.0, 0.0]], served=[[True, False, False]], served_propensity=0.5)
    assert np.isnan(audit_ratio_of(columns)).all()
    assert joint_propensity(columns, columns.models).tolist() == [0.0]
