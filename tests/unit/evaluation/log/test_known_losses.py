import numpy as np
import pytest
from builders.columns import logged

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.log.known_losses import known_losses

NAN = float("nan")


def test_a_model_has_one_column():
    with pytest.raises(InvalidSetting, match="'m0:1' is there"):
        logged([[1.0]], [[0.0]]).with_model("m0:1", np.zeros(1), np.ones(1))


def test_the_decisions_that_are_given_stay_as_they_are():
    columns = logged([[1.0]], [[0.0]], outputs=[["a"]], labels=["b"])
    columns.with_model("new:1", np.zeros(1), np.ones(1), np.zeros(1, np.int32))
    assert columns.models == ("m0:1",)
    assert columns.loss.tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("propensity", "loss", "columns", "weights"),
    [
        pytest.param(
            [[0.625, 0.625]] * 2, [[0.0, 1.0]] * 2, {"served_propensity": 0.5, "label": [0, -1]},
            [[1.6, 1.6], [2.0, 0.0]], id="a label scores by asking, a given loss by serving",
        ),
        pytest.param(
            [[0.625, 0.625]], [[1.0, 0.0]], {"served_propensity": 0.5, "answered": [[False, True]]},
            [[2.0, 1.6]], id="a model that alone did not answer, by serving",
        ),
        pytest.param(
            [[1.0, 0.0]] * 2, [[1.0, NAN]] * 2, {"policies": ("named", "exp3"), "policy": [0, 1]},
            [[0.0, 0.0], [1.0, 0.0]], id="a query that named its models is no evidence",
        ),
        pytest.param(
            [[0.5, 0.0]] * 2, [[1.0, NAN], [NAN, NAN]], {"feedback_offset": [-1, 3]}, [[0.0, 0.0]] * 2, id="no feedback"
        ),
    ],
)  # fmt: skip
def test_a_known_loss_weighs_as_it_was_improbable_to_be_scored(propensity, loss, columns, weights):
    assert known_losses(logged(propensity, loss, **columns)).weight.tolist() == weights
