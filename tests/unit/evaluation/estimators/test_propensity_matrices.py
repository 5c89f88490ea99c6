from dataclasses import replace

import numpy as np
import pytest
from builders.estimators import columns

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.estimators.block_sums import BLOCKS, FOLDS, BlockSums, Terms, blocks_of, folds_of
from clipper_stream.evaluation.estimators.propensity_matrices import choices_of
from clipper_stream.evaluation.log.configuration import Configuration

NAN = float("nan")
HALF = [[0.5, 0.5]]


def test_a_known_loss_is_weighed_by_how_improbable_it_was_to_be_asked():
    found = choices_of(columns(propensity=[[0.25, 0.0]], loss=[[1.0, NAN]], answer_loss=[1.0]), np.array(HALF))
    assert found.weight.tolist() == [[4.0, 0.0]]
    assert found.loss.tolist() == [[1.0, 0.0]]
    assert found.importance.tolist() == [2.0]


def test_decisions_without_feedback_are_no_rows_whatever_is_beside_them():
    log = columns(
        feedback_offset=[-1, 3, -1], propensity=[[1, 0], [0, 0.5], [1, 0]], loss=[[NAN] * 2, [NAN, 1], [NAN] * 2]
    )
    target = np.array([[1.0, 0.0], [0.25, 0.75], [1.0, 0.0]])
    found = choices_of(log, target)
    assert found.target.tolist() == [[0.25, 0.75]]
    assert found.block.tolist() == blocks_of(log)[[1]].tolist()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (np.array([[1.0, 0.0, 0.0]]), "target has shape"),
        (np.array([[0.7, 0.7]]), "no distribution"),
        (np.array([[1.5, -0.5]]), "no distribution"),
        (np.array([[NAN, 1.0]]), "no distribution"),
    ],
)
def test_what_is_no_candidate_is_refused(target, said):
    with pytest.raises(InvalidSetting, match=said):
        choices_of(columns(propensity=[[1, 0]], loss=[[1, NAN]]), target)


def test_blocks_are_even_and_follow_from_the_place_in_the_log_alone():
    log = columns(offset=np.arange(100_000), partition=np.arange(100_000) % 4)
    found = blocks_of(log)
    counts = np.bincount(found, minlength=BLOCKS)
    assert len(counts) == BLOCKS
    chi_square = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert abs(chi_square - BLOCKS) < 5 * np.sqrt(2 * BLOCKS), "as far as chance goes"
    rows = np.random.default_rng(0).permutation(100_000)[:1000]
    assert blocks_of(log.take(rows)).tolist() == found[rows].tolist()
    other = blocks_of(columns(offset=np.arange(1000), partition=np.ones(1000)))
    same = (other == blocks_of(columns(offset=np.arange(1000)))).mean()
    assert same < 0.02, "another partition is another place"
    assert BLOCKS % FOLDS == 0
    assert set(folds_of(found).tolist()) == set(range(FOLDS))


def test_where_contexts_were_drawn_intervals_are_as_wide_as_those_of_contexts():
    """Queries of a context are as hard, and saw one version: intervals by queries held the mean in half of them."""
    rng, held = np.random.default_rng(2), []
    names, context = tuple(map(str, range(200))), np.arange(4_000) % 200
    log = columns(contexts=names, context=context)
    for _ in range(200):
        hard, asked = rng.choice([0.1, 0.7], 200)[context], (rng.random(200) < 0.5)[context]
        terms = Terms(numerator=asked * (rng.random(4_000) < hard) / 0.5)
        found = [
            BlockSums.of(terms, blocks_of(one))
            for one in (log, replace(log, configs={0: Configuration(contexts_drawn=True)}))
        ]
        held.append([abs(one.value - 0.4) < 1.96 * one.standard_error for one in found])
    by_query, by_context = np.mean(held, axis=0)
    assert by_query < 0.7
    assert by_context > 0.9
