import numpy as np
import pytest

from clipper_loadgen.datasets import Dataset
from clipper_loadgen.workload import draw_rows, draw_workload, fresh_count, noisy_labels, repeated_from, zipf_contexts

N = 20_000


def rng(seed=0):
    return np.random.default_rng(seed)


def bound(share, count=N):
    """Four standard deviations of a count of successes."""
    return 4 * np.sqrt(count * share * (1 - share))


def test_the_share_of_repeats_is_the_one_asked_for():
    repeats = N - fresh_count(repeated_from(N, 0.3, 100, rng()))
    assert abs(repeats - 0.3 * N) < bound(0.3)


@pytest.mark.parametrize(("ratio", "fresh"), [(0.0, N), (1.0, 1)])
def test_without_repeats_all_is_fresh_and_with_nothing_else_only_the_first(ratio, fresh):
    assert fresh_count(repeated_from(N, ratio, 100, rng())) == fresh


def test_repeats_reach_back_uniformly_over_the_recent_queries_and_no_further():
    origin = repeated_from(N, 0.5, 10, rng(1))
    back = (np.arange(N) - origin)[10:]
    back = back[back > 0]
    assert back.max() == 10
    counts = np.bincount(back, minlength=11)[1:]
    chi_square = ((counts - len(back) / 10) ** 2 / (len(back) / 10)).sum()
    assert chi_square < 27.9  # 9 degrees of freedom, level 0.001


def test_a_repeat_asks_about_the_row_of_its_origin_and_fresh_queries_about_new_rows():
    origin = repeated_from(500, 0.4, 50, rng(2))
    rows = draw_rows(origin, 1_000, rng(3))
    fresh = [row for query, row in enumerate(rows) if origin[query] == query]
    assert len(set(fresh)) == len(fresh)
    assert all(rows[query] == rows[source] for query, source in enumerate(origin))


def test_more_fresh_queries_than_rows_go_through_all_rows_equally_often():
    rows = draw_rows(np.arange(30), 10, rng())
    assert np.bincount(rows).tolist() == [3] * 10


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.1, 2.0])
def test_contexts_follow_zipfs_law(exponent):
    drawn = np.bincount(zipf_contexts(N, 20, exponent, rng(4)), minlength=20)
    shares = np.arange(1, 21.0) ** -exponent
    expected = N * shares / shares.sum()
    assert ((drawn - expected) ** 2 / expected).sum() < 43.8  # 19 degrees of freedom, level 0.001


def test_one_context_is_the_only_one():
    assert set(zipf_contexts(100, 1, 1.1, rng()).tolist()) == {0}


def test_noise_flips_its_share_of_labels_to_others_evenly():
    labels = [1] * N
    noisy = np.array(noisy_labels(labels, [0, 1, 2, 3], 0.2, rng(5)))
    assert abs((noisy != 1).sum() - 0.2 * N) < bound(0.2)
    for other in (0, 2, 3):
        assert abs((noisy == other).sum() - 0.2 / 3 * N) < bound(0.2 / 3)


def test_without_noise_labels_are_the_true_ones():
    assert noisy_labels(["a", "b", "a"], ["a", "b"], 0.0, rng()) == ["a", "b", "a"]


def test_where_there_is_one_label_noise_has_no_other_to_give():
    assert noisy_labels([7] * 10, [7], 1.0, rng()) == [7] * 10


def workload_of(dataset, count=1_000, **changes):
    options = {"contexts": 5, "zipf_exponent": 1.0, "noise_ratio": 0.0, "seed": 1, **changes}
    return draw_workload(dataset, repeated_from(count, 0.1, 10, rng(6)), **options)


def test_labels_are_those_of_the_rows_asked_about():
    dataset = Dataset(rows=list(range(50)), labels=[row % 3 for row in range(50)])
    workload = workload_of(dataset)
    assert workload.labels == [row % 3 for row in workload.rows]


def test_another_number_of_contexts_leaves_rows_and_labels_as_they_were():
    dataset = Dataset(rows=list(range(50)), labels=list(range(50)))
    few, many, none = (workload_of(dataset, contexts=contexts, noise_ratio=0.1) for contexts in (2, 100, 0))
    assert few.rows == many.rows == none.rows
    assert few.labels == many.labels == none.labels
    assert none.contexts is None


def test_noise_leaves_the_other_labels_as_they_were():
    dataset = Dataset(rows=list(range(50)), labels=list(range(50)))
    clean, noisy = (workload_of(dataset, noise_ratio=ratio) for ratio in (0.0, 0.1))
    changed = sum(a != b for a, b in zip(clean.labels, noisy.labels, strict=True))
    assert 0 < changed < 200
    assert clean.rows == noisy.rows


def test_the_same_seed_draws_the_same_workload():
    dataset = Dataset(rows=list(range(50)))
    assert workload_of(dataset) == workload_of(dataset)
    assert workload_of(dataset).rows != workload_of(dataset, seed=2).rows
