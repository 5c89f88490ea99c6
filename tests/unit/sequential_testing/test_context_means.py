"""Contexts that are drawn once are one score each."""

import numpy as np
import pytest

from clipper_stream.sequential_testing import context_means
from clipper_stream.sequential_testing.score_sums import Score, ScoreSums
from clipper_stream.sequential_testing.trial_evidence import TrialDecision, TrialEvidence


def query(context, second, *, asked, **fields):
    return TrialDecision(second=second, share=0.25, asked=asked, canary=True, context_drawn=context, **fields)


def begun(kind="reward", **fields):
    evidence = TrialEvidence(0.02, window_s=60.0, **fields)
    evidence.began, evidence.kind = 0, kind
    return evidence


def learn(evidence, kind, opened, pair):
    (trial, answer), asked = pair, opened.decision.asked
    evidence.learn(opened, kind, trial if asked else None, answer if kind == "label" or not asked else None)


@pytest.mark.parametrize("sampled", [False, True])
def test_a_context_is_one_score_the_mean_of_its_queries_and_says_nothing_after_its_window(sampled):
    evidence = begun(sampled=sampled)
    opened = [evidence.decide(query(0.1, second, asked=True)) for second in (0, 10, 20, 30)]
    for one, loss in zip(opened, (1.0, 1.0, 0.0), strict=False):
        evidence.learn(one, "reward", loss, None)
    evidence.give_up(opened[3])
    found = evidence.whole.capital()
    assert (found.scores, found.left_out) == (0, 1), "while its window is open"
    assert evidence.decide(query(0.9, 60, asked=False)) is not None
    assert evidence.decide(query(0.1, 61, asked=True)) is None
    whole, drawn = evidence.whole.capital(60), evidence.share.capital()
    low, high = (2.0 / 3, 2.0 / 3) if sampled else (0.5, 0.75)
    assert (whole.scores, whole.waiting) == (1, 0)
    assert whole.mean == pytest.approx(0.75 * ((low + high) / 2 - 0.5) / 0.1875)
    assert whole.unknown == pytest.approx(0.75 * (high - low) / 2 / 0.1875)
    assert whole.trial == (1, pytest.approx(2.0 / 3))
    assert (drawn.scores, drawn.mean) == (2, 0.25), "a draw a context"
    assert evidence.asked == 5, "silence and queries are counted as they come"


def by_formula(kind, asked, recent, pairs):
    """The scores of a context, as the formulas of the page have them."""
    trial, answer = np.mean(pairs, axis=0)
    if kind == "label":
        return [Score(1.0, trial - answer, trial - answer)] if asked else []
    drawn = 0.75 * (trial - recent) if asked else -0.25 * (answer - recent)
    return [Score(0.1875, drawn, drawn)]


@pytest.mark.parametrize("kind", ["label", "reward"])
def test_in_whichever_order_queries_and_feedback_come_a_context_counts_by_its_mean(kind):
    rng, evidence, known, opened = np.random.default_rng(3), begun(kind), ScoreSums(0.02), []
    for number in range(400):
        context = number % 40 if number < 200 else int(rng.integers(40))
        opened.append((evidence.decide(query(context, number // 10, asked=context < 15)), rng.random(2).tolist()))
        if number % 2:
            learn(evidence, kind, *opened[number // 2])
    for place in rng.permutation(np.arange(200, 400)):
        learn(evidence, kind, *opened[place])
    evidence.decide(query(99.0, 120, asked=True, scored=False))
    for context in range(40):
        own = [(one, pair) for one, pair in opened if one.decision.context_drawn == context]
        for score in by_formula(kind, context < 15, own[0][0].recent, [pair for _, pair in own]):
            known.add(0, score)
    found, expected = evidence.whole.capital(120), known.capital()
    assert (found.scores, found.waiting) == (expected.scores, 0)
    assert (found.below, found.above, found.mean) == pytest.approx((expected.below, expected.above, expected.mean))


def test_what_a_context_is_compared_with_does_not_depend_on_its_own_losses():
    evidence = begun()
    for second in range(20):
        opened = evidence.decide(query(0.1, second, asked=True))
        evidence.learn(opened, "reward", 1.0, None)
        assert opened.recent == 0.5
    assert evidence.decide(query(0.2, 20, asked=True)).recent > 0.8


def test_contexts_without_end_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(context_means, "MOST_CONTEXTS", 3)
    evidence = begun()
    opened = [evidence.decide(query(float(number), 0, asked=True)) for number in (*range(5), 0)]
    assert [one is None for one in opened] == [False, False, False, True, True, False]
    assert evidence.share.capital().scores == 3


@pytest.mark.parametrize("heard", [0.5, 1.0])
def test_whether_feedback_follows_who_answered_is_told_by_contexts(heard):
    """Each context asks ten queries; of those that the trial answers so many in ten are heard, of the others all."""
    rng, evidence = np.random.default_rng(5), TrialEvidence(0.02, 60.0, sampled=True, window_s=60.0)
    evidence.began = 0
    for second in range(2_000):
        asked = bool(rng.random() < 0.25)
        opened = [evidence.decide(query(second, second, asked=asked)) for _ in range(10)]
        for one in opened[: round(10 * heard) if asked else 10]:
            evidence.learn(one, "reward", *((0.5, None) if asked else (None, 0.5)))
    found = evidence.heard_so_far
    expected = 0.25 * 0.75 * (heard - 1.0) / (0.25 * heard + 0.75)
    assert found.mean == pytest.approx(expected, abs=4 * 0.433 / 1_880**0.5)
    assert (max(found.below, found.above) > 5.0) == (heard < 1.0)
