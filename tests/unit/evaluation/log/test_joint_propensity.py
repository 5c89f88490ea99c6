import numpy as np
import pytest
from builders.columns import logged
from builders.known_truth import MODELS, truth

from clipper_stream.evaluation.log.configuration import Configuration
from clipper_stream.evaluation.log.joint_propensity import joint_propensity

AUDITED = truth(20_000, 1).logged((0.6, 0.3, 0.1), audit_ratio=0.2)
CANARY = {"m2:1": (0.0, 0.25)}
PAIR = {"propensity": [[0.5, 0.0, 0.25]], "served": [[False, False, True]], "served_propensity": 0.25}
"""A canary beside a policy that chose the first of two evenly."""


@pytest.mark.parametrize(
    ("columns", "config", "joint"),
    [
        pytest.param({"propensity": [[1.0, 0.25], [1.0, 0.0]]}, {"audit_ratio": 0.25}, [0.25, 0.0], id="audits"),
        pytest.param({"propensity": [[0.625, 0.625]]}, {"audit_ratio": 0.25}, [0.25], id="audits of an even policy"),
        pytest.param({"propensity": [[1.0] * 3] * 2, "served": [[True] * 3] * 2}, {}, [1.0] * 2, id="all"),
        pytest.param({"propensity": [[1.0] * 2], "policies": ("named",)}, {}, [0.0], id="a query named models"),
        pytest.param(
            {"propensity": [[0.625, 0.625, 0.5]]}, {"audit_ratio": 0.25, "trials": {"m2:1": (0.5, 1.0)}}, [0.125],
            id="a shadow is a factor",
        ),
        pytest.param(
            {"propensity": [[1.0, 0.5, 0.75]]}, {"trials": {"m1:1": (0.0, 0.5), "m2:1": (0.25, 1.0)}}, [0.25],
            id="a canary and a shadow on the part that they have in common",
        ),
    ],
)  # fmt: skip
def test_all_are_asked_together_as_the_configuration_of_the_decision_says(columns, config, joint):
    found = logged(loss=np.zeros(np.shape(columns["propensity"])), configs={0: Configuration(**config)}, **columns)
    assert joint_propensity(found, found.models).tolist() == pytest.approx(joint)


def test_a_pair_of_a_canary_counts_by_the_configuration_of_its_own_revision():
    """The canary is finished: under the last revision nothing is on trial."""
    columns = {name: np.repeat(np.asarray(PAIR[name]), 2, axis=0) for name in ("propensity", "served")}
    configs = {4: Configuration(trials=CANARY), 5: Configuration()}
    found = logged(loss=np.zeros((2, 3)), revision=[4, 5], configs=configs, **columns)
    assert joint_propensity(found, ["m0:1", "m2:1"]).tolist() == [0.125, 0.0]


def test_members_that_are_not_wanted_are_no_condition():
    found = logged([[1.0, 0.0], [1.0, 0.5]], np.zeros((2, 2)))
    members = np.array([[True, False], [True, True]])
    assert joint_propensity(found, found.models, members).tolist() == [1.0, 0.5]


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
