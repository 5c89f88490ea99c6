import numpy as np
import pytest
from builders.columns import logged
from builders.known_truth import MODELS, truth

from clipper_stream.evaluation.log.joint_propensity import audit_ratio_of, joint_propensity

AUDITED = truth(20_000, 1).logged((0.6, 0.3, 0.1), audit_ratio=0.2)
NAN = float("nan")
WITH_SHADOW = {"propensity": [[0.625, 0.625, 0.5]], "served": [[True, False, False]], "served_propensity": 0.5}
"""An audit of two candidates at p = 0.5, a = 0.25, and a shadow of share 0.5."""


@pytest.mark.parametrize(
    ("columns", "trials", "ratios", "joint"),
    [
        pytest.param(
            {"propensity": [[1.0, 0.25], [1.0, 0.0]], "served_propensity": 1.0}, (), [0.25, NAN], [0.25, 0.0],
            id="a policy that is sure tells the ratio by its audits",
        ),
        pytest.param({"propensity": [[1.0] * 3] * 2, "served": [[True] * 3] * 2}, (), [1.0] * 2, [1.0] * 2, id="all"),
        pytest.param({"propensity": [[1.0] * 2], "policies": ("named",)}, (), [1.0], [0.0], id="a query named models"),
        pytest.param(WITH_SHADOW, ["m2:1"], [0.25], [0.125], id="a named trial is a factor"),
        pytest.param(WITH_SHADOW, (), [NAN], [0.0], id="a trial that was not named is noticed"),
    ],
)  # fmt: skip
def test_all_are_asked_together_with_what_can_be_told_from_each_row(columns, trials, ratios, joint):
    found = logged(loss=np.zeros(np.shape(columns["propensity"])), **columns)
    assert audit_ratio_of(found, trials).tolist() == pytest.approx(ratios, nan_ok=True)
    assert joint_propensity(found, found.models, trials).tolist() == pytest.approx(joint)


def test_one_model_is_asked_with_its_own_propensity_and_one_that_was_run_on_every_input_is_no_condition():
    wider = AUDITED.with_model("new:1", np.zeros(len(AUDITED)), np.ones(len(AUDITED)))
    assert np.array_equal(joint_propensity(AUDITED, MODELS[1:2]), AUDITED.propensity[:, 1])
    assert np.array_equal(joint_propensity(wider, [MODELS[0], "new:1"]), AUDITED.propensity[:, 0])
    assert np.allclose(joint_propensity(wider, [*MODELS, "new:1"]), joint_propensity(AUDITED, MODELS), atol=1e-12)


def test_its_inverse_counts_all_decisions():
    # 1 / a on a share a of the rows: mean 1, variance (1 - a) / a; three standard errors
    joint = joint_propensity(AUDITED, MODELS[:2])
    mean = np.divide(1.0, joint, out=np.zeros(len(joint)), where=joint > 0).mean()
    assert abs(mean - 1.0) < 3.0 * np.sqrt(0.8 / 0.2 / len(joint))
