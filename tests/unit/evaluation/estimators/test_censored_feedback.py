from dataclasses import replace

import numpy as np
import pytest
from builders.estimators import columns

from clipper_stream.evaluation.estimators.censored_feedback import (
    BUCKETS,
    Censored,
    Delays,
    buckets_of,
    edge_ms,
    mature,
)

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
    """Half of all decisions are younger than what feedback takes: of those that came, it looks fast."""
    slow = log(slow=500_000.0)
    found = Delays.of(slow.take(slow.served[:, 1]), NOW_MS).arrived
    bucket = int(buckets_of(np.array([500_000.0]))[0])
    assert found[bucket] == pytest.approx(1 - np.exp(-edge_ms(bucket) / 500_000.0), abs=4 * 0.5 / np.sqrt(5_000))


def test_feedback_that_never_comes_leaves_a_plateau():
    found = Delays.of(log(sent=(0.7, 0.3)), NOW_MS).arrived
    assert found[-1] == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(20_000))


def test_a_decision_is_mature_when_nearly_all_feedback_that_comes_has_come():
    delays = Delays.of(log(slow=1_000.0), NOW_MS)
    assert delays.maturity_ms() == pytest.approx(-1_000 * np.log(0.01), rel=0.08)
    assert Delays.of(log(0), NOW_MS).maturity_ms() == 0


def censored(some, maturity_ms, spans=1):
    return Censored.of(some, NOW_MS, maturity_ms, some.at_ms * spans // (NOW_MS + 1), spans)


def test_chunks_are_added():
    some = log(2_000)
    halves = [some.take(slice(0, 900)), some.take(slice(900, 2_000))]
    first, second = (Delays.of(half, NOW_MS) for half in halves)
    assert np.array_equal(first.merged(second).arrived, Delays.of(some, NOW_MS).arrived)
    counted = [censored(half, 5_000) for half in halves]
    assert counted[0].merged(counted[1]).sentence == censored(some, 5_000).sentence


def test_what_was_left_out_is_said():
    some = columns(at_ms=[0, 0, 0, 990_000], served=[[1, 0]] * 4, feedback_offset=[1, 1, -1, 1])
    said = censored(some, 60_000).sentence
    assert "1 of 4 decisions were left out" in said
    assert "of the other 3, 1 have none" in said
    assert mature(some, NOW_MS, 60_000).tolist() == [True, True, True, False]


def test_shares_that_differ_by_more_than_chance_are_warned_of_and_may_hide_any_loss():
    found = censored(log(sent=(0.7, 0.6)), 30_000, spans=4)
    warning = found.warning(["a:1", "b:1"])
    assert warning.startswith(("40.", "39."))
    assert "that b:1 served have no feedback, of all decisions 3" in warning
    assert found.unknown_ratio == pytest.approx(0.4 + 0.35, abs=0.02)


def test_feedback_that_gets_rarer_while_another_model_comes_is_not_that_models_doing():
    """The first model serves the first half, in which a tenth is silent, the second the other, in which half is."""
    early, late = (log(10_000, sent=(sent, sent), slow=1_000.0, seed=seed) for seed, sent in enumerate((0.9, 0.5)))
    early, late = (some.take(some.served[:, number]) for number, some in enumerate((early, late)))
    parts = [replace(some, at_ms=some.at_ms // 2 + start) for some, start in ((early, 0), (late, NOW_MS // 2))]
    counts = {spans: [censored(some, 1_000, spans) for some in parts] for spans in (1, 4)}
    warned = {spans: one.merged(other).unknown_ratio > 0.0 for spans, (one, other) in counts.items()}
    assert warned == {1: True, 4: False}


def counted(served, unheard) -> Censored:
    table = {"served": np.array([served]), "unheard": np.array([unheard])}
    return Censored(young=0, old=np.array([[sum(served)]]), silent=np.array([[sum(unheard)]]), **table)


def test_shares_that_differ_by_chance_are_warned_of_as_seldom_as_promised():
    """Three models are served alike: a share is too far away in at most one of 300 logs, but for rare luck in 4."""
    missing = np.random.default_rng(9).binomial(500, 0.3, (300, 3)).astype(float)
    counts = [counted([500.0] * 3, one) for one in missing]
    assert sum(one.unknown_ratio > 0.0 for one in counts) <= 4


def test_nothing_is_warned_of_where_there_is_nothing_to_compare():
    for served, unheard in (([0.0, 0.0], [0.0, 0.0]), ([100.0, 0.0], [10.0, 0.0]), ([50.0, 50.0], [0.0, 0.0])):
        found = counted(served, unheard)
        assert (found.unknown_ratio, found.warning(["a", "b"])) == (0.0, "")
