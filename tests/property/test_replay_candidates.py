"""Logs of any policy, with any audits: what is derived from them is what they were made with."""

import numpy as np
from builders.columns import logged
from builders.known_truth import MODELS, Truth
from hypothesis import given
from hypothesis import strategies as st

from clipper_stream.errors import SetupError
from clipper_stream.evaluation.candidates.candidate_text import parse_candidate
from clipper_stream.evaluation.log.configuration import Configuration
from clipper_stream.evaluation.log.ensembles import with_ensemble
from clipper_stream.evaluation.log.joint_propensity import joint_propensity

seeds = st.integers(0, 2**32 - 1)


def any_log(seed: int, audit_ratio: float, rows: int = 40):
    """A log whose policy changes with each decision; some of its feedback is missing."""
    rng = np.random.default_rng(seed)
    truth = Truth(
        loss=rng.random((rows, 3)),
        at_ms=np.sort(rng.integers(0, 60, rows)),
        feedback_at_ms=rng.integers(0, 120, rows),
        partition=rng.integers(0, 3, rows),
        context=np.zeros(rows, int),
    )
    columns = truth.logged(rng.dirichlet([1.0, 1.0, 1.0], rows), seed, audit_ratio)
    columns.feedback_offset[rng.random(rows) < 0.2] = -1
    return columns


@given(seeds, st.floats(0.001, 0.999))
def test_all_models_were_asked_with_the_probability_of_an_audit(seed, ratio):
    columns = any_log(seed, ratio)
    audited = columns.asked.all(axis=1)
    joint = joint_propensity(columns, MODELS)
    assert np.allclose(joint[audited], ratio, rtol=0, atol=1e-12)
    assert not joint[~audited].any()


@given(seeds, st.sampled_from([0.0, 0.1, 0.6]), st.permutations([0, 1, 2]))
def test_the_order_of_models_changes_no_joint_probability(seed, ratio, order):
    columns = any_log(seed, ratio)
    models = [MODELS[place] for place in order]
    assert np.array_equal(joint_propensity(columns.of_models(models), models), joint_propensity(columns, MODELS))


@given(seeds, st.integers(1, 4), st.sampled_from(["vote", "mean"]), st.floats(0.0, 1.0))
def test_a_combined_loss_is_that_of_combining_each_row_by_itself(seed, values, combiner, threshold):
    rng = np.random.default_rng(seed)
    outputs = [
        [None if late else int(value) for value, late in zip(row, lates, strict=True)]
        for row, lates in zip(rng.integers(0, values, (20, 3)), rng.random((20, 3)) < 0.2, strict=True)
    ]
    labels = rng.integers(0, values, 20).tolist()
    weights = dict(zip(MODELS, rng.random(3).tolist(), strict=True))
    config = Configuration(combiner=combiner, confidence_threshold=threshold, default_output=0)
    columns = logged(
        np.ones((20, 3)), np.zeros((20, 3)), models=MODELS, outputs=outputs, labels=labels, configs={0: config}
    )
    expected = [
        config.loss_of(
            {model: said for model, said in zip(MODELS, row, strict=True) if said is not None}, weights, label
        )
        for row, label in zip(outputs, labels, strict=True)
    ]
    assert with_ensemble(columns, "all", [weights]).loss[:, -1].tolist() == expected


@given(st.text(max_size=30))
def test_no_text_is_parsed_by_accident_or_ends_in_a_defect(text):
    try:
        candidate = parse_candidate(text, MODELS)
    except SetupError:
        return
    assert candidate.name in (text.strip(), f"frozen {text.strip()}", f"model {text.strip()}")
