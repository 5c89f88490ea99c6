import numpy as np
import pytest
from builders.columns import logged

from clipper_stream.evaluation.log.columns import distinct_rows
from clipper_stream.evaluation.log.configuration import Configuration
from clipper_stream.evaluation.log.ensembles import with_ensemble

ALIKE = {"m0:1": 1.0, "m1:1": 1.0, "m2:1": 1.0}
HEAVY = ALIKE | {"m0:1": 3.0}
NAN = float("nan")
MEAN = {"combiner": "mean", "loss": "absolute"}
SPLIT = [["a", "b", "b"]]
AGREED = [["a", "a", "a"]]


def asked(outputs, labels, **columns):
    rows, models = len(outputs), len(outputs[0])
    propensity = columns.pop("propensity", np.ones((rows, models)))
    return logged(propensity, np.zeros((rows, models)), outputs=outputs, labels=labels, **columns)


def losses(columns, weights=ALIKE, which=None, **changed):
    each = weights if isinstance(weights, list) else [weights]
    return with_ensemble(columns, "all", each, which, changed).loss[:, -1].tolist()


@pytest.mark.parametrize(
    ("outputs", "labels", "changed", "expected"),
    [
        pytest.param([["a", "a", "b"], *SPLIT], ["a", "a"], {}, [0.0, 1.0], id="the majority answers"),
        pytest.param(SPLIT, ["a"], {"weights": HEAVY}, [0.0], id="weights decide against the majority"),
        pytest.param([[1.0, 0.0, 0.5]], [0.75], MEAN, [0.25], id="numbers are averaged"),
        pytest.param(
            [["a", "b", "c"], ["a", "a", "c"]], ["a", "a"], {"confidence_threshold": 0.5, "default_output": "none"},
            [1.0, 0.0], id="models that agree too little leave the default",
        ),
        pytest.param(
            [["a", "b", "c"], ["a", "a", "c"]], ["a", "a"], {"confidence_threshold": 0.9, "default_output": "a"},
            [0.0, 0.0], id="a default may be right",
        ),
        pytest.param([["a", "a", None]], ["a"], {}, [0.0], id="without a late member the others answer"),
        pytest.param(
            [["a", "a", None]], ["a"], {"confidence_threshold": 0.7, "default_output": "none"}, [1.0],
            id="a late member lowers the confidence",
        ),
        pytest.param([[None] * 3], ["a"], {"default_output": "a"}, [1.0], id="nobody answered"),
        pytest.param([["a", "b", "c"]], ["a"], {"combiner": "mean"}, [1.0], id="no mean is no answer"),
        *(
            pytest.param(
                [[1.0, 2.0, 3.0]], [2.0], {"loss": loss, "confidence_threshold": 0.9, "default_output": "unsure"},
                [1.0], id=f"an answer that no label can be compared with, {loss}",
            )
            for loss in ("zero_one", "absolute")
        ),
    ],
)  # fmt: skip
def test_the_loss_of_a_combined_answer_is_that_of_what_the_router_would_have_said(outputs, labels, changed, expected):
    assert losses(asked(outputs, labels), **changed) == expected


def test_an_answer_is_combined_as_the_application_did_at_the_time():
    configs = {1: Configuration(), 2: Configuration(confidence_threshold=0.9, default_output="a")}
    columns = asked(SPLIT * 2, ["a", "a"], revision=[1, 2], configs=configs)
    assert losses(columns) == [1.0, 0.0]
    assert losses(columns, confidence_threshold=0.0) == [1.0, 1.0], "unless the candidate says otherwise"


def test_weights_and_members_may_differ_by_decision():
    columns = asked(SPLIT * 3, ["a"] * 3)
    assert losses(columns, [HEAVY, ALIKE, {"m0:1": 1.0}], np.array([0, 1, 2])) == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param({"propensity": [[1.0, 1.0, 0.0]]}, id="a member was not asked"),
        pytest.param({"label": [-1]}, id="there is no label"),
        pytest.param({"output": [[0, 0, -1]], "answered": [[True] * 3]}, id="an output was not written down"),
    ],
)
def test_nothing_is_known_where(columns):
    assert losses(asked(AGREED, ["a"], **columns)) == pytest.approx([NAN], nan_ok=True)


def test_as_many_values_as_do_not_fit_one_number_are_told_apart():
    columns = asked([[f"{row}-{model}" for model in range(3)] for row in range(4)], ["0-0", "1-0", "x", "x"])
    far = np.column_stack([columns.output] * 20).astype(np.int32) + len(columns.values)
    different, place = distinct_rows(np.vstack([far, far]))
    assert len(different) == 4
    assert np.array_equal(different[place], np.vstack([far, far]))


def test_a_query_of_several_rows_is_answered_row_by_row():
    outputs = [
        [["a", "b"], ["a", "c"], ["x", "b"]],
        [["a", None], ["a", "c"], ["x", "c"]],
        [["a", None], [], ["b", None]],
    ]
    columns = asked(outputs, [["a", "b"], ["a", "x"], ["a", "b"]], several_rows=[True] * 3)
    assert losses(columns) == [0.0, 0.5, 1.0]
    assert losses(columns, confidence_threshold=0.7, default_output="b") == [0.5, 1.0, 1.0]
    numbers = asked([[[1.0, 3.0], [3.0, 5.0]]], [[2.0, 4.0]], several_rows=[True])
    assert losses(numbers, {"m0:1": 1.0, "m1:1": 1.0}, combiner="mean", loss="squared") == [0.0]


def test_an_ensemble_is_a_column_with_the_probability_of_asking_all():
    given = {"propensity": [[0.625, 0.625], [0.625, 0.0]], "served": [[True, False]] * 2, "served_propensity": 0.5}
    configs = {0: Configuration(audit_ratio=0.25)}
    columns = asked([["a", "b"], ["a", None]], ["b", "a"], configs=configs, **given)
    wider = with_ensemble(columns, "both", [{"m0:1": 1.0, "m1:1": 2.0}])
    assert wider.models == (*columns.models, "both")
    assert wider.propensity[:, -1].tolist() == [0.25, 0.0]
    assert wider.loss[:, -1].tolist() == pytest.approx([0.0, NAN], nan_ok=True)
    assert wider.answered[:, -1].tolist() == [True, False]
