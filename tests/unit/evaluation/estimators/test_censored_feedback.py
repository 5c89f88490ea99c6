import numpy as np
import pytest
from builders.estimators import columns
from scipy.stats import chi2

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.estimators.censored_feedback import (
    BUCKETS,
    Censored,
    Delays,
    buckets_of,
    chi_square_above,
    edge_ms,
    mature,
    weights_of,
)
from clipper_stream.evaluation.estimators.propensity_matrices import choices_of
from clipper_stream.evaluation.estimators.registry import make_estimators

NOW_MS = 1_000_000
NAN = float("nan")


def log(n=20_000, *, slow=5_000.0, sent=(1.0, 1.0), losses=(0.2, 0.6), seed=0):
    """Two models served at random over a million milliseconds; the first's feedback takes a second on average."""
    rng = np.random.default_rng(seed)
    at_ms, served = rng.integers(0, NOW_MS, n), rng.integers(0, 2, n)
    came_ms = at_ms + rng.exponential(np.where(served == 0, 1_000.0, slow)).astype(np.int64)
    came = (came_ms <= NOW_MS) & (rng.random(n) < np.array(sent)[served])
    lost = (rng.random(n) < np.array(losses)[served]).astype(float)
    mask = served[:, None] == np.arange(2)
    return columns(
        at_ms=at_ms, served=mask, propensity=0.5 * mask, served_propensity=np.full(n, 0.5),
        feedback_offset=np.where(came, 1, -1), feedback_at_ms=np.where(came, came_ms, -1),
        loss=np.where(mask & came[:, None], lost[:, None], NAN), answer_loss=np.where(came, lost, NAN),
    )  # fmt: skip


def test_a_bucket_holds_the_delays_up_to_its_edge():
    delays = np.array([-5, 0, 1, 2, 1000, 86_400_000])
    found = buckets_of(delays)
    assert all(edge_ms(int(bucket)) >= delay for bucket, delay in zip(found, delays, strict=True))
    assert all(edge_ms(int(bucket) - 1) < delay for bucket, delay in zip(found[3:], delays[3:], strict=True))
    assert buckets_of(np.array([2**60])).tolist() == [BUCKETS - 1]


def test_the_distribution_of_delays_is_found_though_young_decisions_still_wait():
    """Half of all decisions are younger than what feedback of the second takes: of those that came, it looks fast."""
    found = Delays.of(log(slow=500_000.0), NOW_MS)
    for group, mean in ((0, 1_000.0), (1, 500_000.0)):
        bucket = int(buckets_of(np.array([mean]))[0])
        expected = 1 - np.exp(-edge_ms(bucket) / mean)
        assert found.arrived[group, bucket] == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(5_000))


def test_feedback_that_never_comes_leaves_a_plateau():
    found = Delays.of(log(sent=(0.7, 0.3)), NOW_MS).arrived
    assert found[:2, -1] == pytest.approx([0.7, 0.3], abs=4 * 0.5 / np.sqrt(10_000))


def test_a_decision_is_mature_when_nearly_all_feedback_that_comes_has_come():
    delays = Delays.of(log(slow=1_000.0), NOW_MS)
    assert delays.maturity_ms(0.99) == pytest.approx(-1_000 * np.log(0.01), rel=0.08)
    assert delays.maturity_ms(0.5) < delays.maturity_ms(0.9) < delays.maturity_ms(1.0)
    assert Delays.of(log(0), NOW_MS).maturity_ms() == 0
    with pytest.raises(InvalidSetting, match="ratio"):
        delays.maturity_ms(0.0)


def test_ensembles_and_nobody_are_groups_of_their_own():
    some = columns(served=[[1, 0], [0, 1], [1, 1], [0, 0]], at_ms=[0, 0, 0, 0], feedback_offset=[-1, 1, 1, -1])
    found = Censored.of(some, NOW_MS, 0)
    assert found.came.tolist() == [0, 1, 1, 0]
    assert found.missing.tolist() == [1, 0, 0, 1]


def test_chunks_are_added():
    some = log(2_000)
    halves = [some.take(slice(0, 900)), some.take(slice(900, 2_000))]
    first, second = (Delays.of(half, NOW_MS) for half in halves)
    assert np.array_equal(first.merged(second).arrived, Delays.of(some, NOW_MS).arrived)
    counted = [Censored.of(half, NOW_MS, 5_000) for half in halves]
    assert counted[0].merged(counted[1]).sentence == Censored.of(some, NOW_MS, 5_000).sentence


def test_what_was_left_out_is_said():
    some = columns(at_ms=[0, 0, 0, 990_000], served=[[1, 0]] * 4, feedback_offset=[1, 1, -1, 1])
    said = Censored.of(some, NOW_MS, 60_000).sentence
    assert "1 of 4 decisions were left out" in said
    assert "of the other 3, 1 have none" in said
    assert mature(some, NOW_MS, 60_000).tolist() == [True, True, True, False]


def test_shares_that_differ_by_more_than_chance_are_warned_of():
    found = Censored.of(log(sent=(0.7, 0.6)), NOW_MS, 30_000)
    assert found.p_value < 0.001
    (warning,) = found.warnings(["a:1", "b:1"])
    assert warning.startswith(("40.", "39."))
    assert "that b:1 served have no feedback, of those of a:1" in warning


def test_shares_that_differ_by_chance_are_warned_of_as_seldom_as_promised():
    """Of 300 logs 5 % have a p below 0.05, within four standard errors, and more than 4 one below 0.001 but rarely."""
    missing = np.random.default_rng(9).binomial(500, 0.3, (300, 3)).astype(float)
    found = np.array([Censored(young=np.zeros(3), came=500 - each, missing=each).p_value for each in missing])
    assert np.mean(found < 0.05) == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 300))
    assert sum(found < 0.001) <= 4


def test_nothing_is_warned_of_where_there_is_nothing_to_compare():
    for came, missing in (([0.0, 0.0], [0.0, 0.0]), ([90.0, 0.0], [10.0, 0.0]), ([50.0, 50.0], [0.0, 0.0])):
        found = Censored(young=np.zeros(2), came=np.array(came), missing=np.array(missing))
        assert found.p_value == 1.0
        assert found.warnings(["a", "b"]) == ()


def test_chi_square_is_that_of_scipy():
    for degrees in range(1, 12):
        values = np.linspace(0.0, 40.0, 9)
        assert [chi_square_above(each, degrees) for each in values] == pytest.approx(chi2.sf(values, degrees))


def test_weights_give_the_models_whose_feedback_seldom_comes_their_share_again():
    some = log(sent=(0.9, 0.3), slow=20_000.0)
    target, (ips,) = np.full((len(some), 2), 0.5), make_estimators(["ips"])
    weights = weights_of(some, Delays.of(some, NOW_MS), NOW_MS)
    naive, weighted = (ips.sums(choices_of(some, target, censoring=each)) for each in (None, weights))
    assert abs(naive.value - 0.4) > 8 * weighted.standard_error, "the better model answers three times as often"
    assert abs(weighted.value - 0.4) < 4 * weighted.standard_error


def test_decisions_without_feedback_or_too_young_have_no_weight():
    some = log(sent=(0.9, 0.3), slow=500_000.0)
    weights = weights_of(some, Delays.of(some, NOW_MS), NOW_MS)
    assert (weights[~some.with_feedback] == 0).all()
    assert weights.max() <= 20
    assert (weights[some.with_feedback & some.served[:, 1] & (some.at_ms > NOW_MS - 5_000)] == 0).all()
