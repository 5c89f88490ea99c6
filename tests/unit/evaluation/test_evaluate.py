import json
import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from builders.known_truth import MODELS, in_chunks, log_of

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.candidates.candidate import LearningPolicy
from clipper_stream.evaluation.candidates.candidate_text import parse_candidate
from clipper_stream.evaluation.evaluate import evaluate
from clipper_stream.evaluation.question import Question
from clipper_stream.selection.registry import make_policy


def candidates(*texts: str):
    return [parse_candidate(text, MODELS) for text in texts]


def found(columns, *texts: str, size: int = 1_000, **question):
    return evaluate("digits", in_chunks(columns, size), candidates(*texts), Question(**question))


def test_the_truth_lies_in_the_intervals_of_fixed_candidates():
    columns, truth = log_of(6_000, 1)
    result = found(columns, "b:1", "split:a:1=0.5,b:1=0.5", "split:a:1=0.6,b:1=0.2,c:1=0.2")
    for one, value in zip(result.candidates, (truth[:, 1].mean(), truth[:, :2].mean()), strict=False):
        for name, estimate in one.estimates.items():
            assert estimate.covers(value) or name == "dm", name  # its interval ignores how wrong predictions are
        assert one.headline == "dr"
    assert result.candidates[0].verdict == "better"
    assert result.logged.loss.value == pytest.approx(np.nanmean(columns.answer_loss), abs=1e-3)
    as_logged = result.candidates[2]
    assert as_logged.verdict == "not told apart"
    assert as_logged.difference.covers(0.0)


def test_chunks_change_nothing():
    columns, _ = log_of(2_000, contexts=3)
    whole, parts = (found(columns, "b:1", "frozen exp3", size=size) for size in (10_000, 77))
    for one, other in zip(whole.candidates, parts.candidates, strict=True):
        assert one.loss.value == pytest.approx(other.loss.value, rel=1e-12)
        assert one.loss.low == pytest.approx(other.loss.low, rel=1e-9)
        assert one.series.loss == pytest.approx(other.series.loss, rel=1e-9, nan_ok=True)
        assert [each.context for each in one.contexts] == [each.context for each in other.contexts]


def test_a_learning_policy_is_simulated_where_all_losses_are_known():
    columns, truth = log_of(3_000, audit_ratio=1.0)
    one = found(columns, "exp3:eta=0.2").candidates[0]
    assert one.headline == "simulation"
    assert truth[:, 1].mean() < one.loss.value < truth.mean()
    assert one.verdict == "better"
    shares = one.series.shares["b:1"]
    assert shares[-1] > 0.8 > shares[0]


@pytest.mark.parametrize("audit_ratio", [0.0, 0.3])
def test_a_learning_policy_is_estimated_where_they_are_not(audit_ratio):
    columns, truth = log_of(4_000, audit_ratio=audit_ratio)
    one = found(columns, "epsilon_greedy").candidates[0]
    assert one.headline == "rejection"
    assert truth[:, 1].mean() - 0.03 < one.loss.value < 0.3


def test_a_candidate_without_support_is_warned_about():
    columns, _ = log_of(2_000, shares=(0.5, 0.5, 0.0))
    one = found(columns, "split:c:1=1").candidates[0]
    assert (one.standing.unsupported_ratio, one.verdict) == (1.0, "unknown")
    assert any("never" in warning and "audit_ratio" in warning for warning in one.warnings)


def test_decisions_whose_feedback_may_still_come_are_left_out_and_it_is_said():
    columns, _ = log_of(2_000, delay_ms=20_000, missing=0.1)
    result = found(columns, "b:1")
    late = columns.at_ms > columns.feedback_at_ms.max() - 20_000
    assert result.with_feedback <= int((columns.with_feedback & ~late).sum()) + 1
    assert any("may still come" in note for note in result.notes)


def test_contexts_are_told_apart():
    columns, truth = log_of(8_000, contexts=2)
    one = found(columns, "b:1").candidates[0]
    by_name = {each.context: each for each in one.contexts}
    assert by_name["user-0"].difference.high < 0.0
    assert json.loads(msgspec.json.encode(one))["contexts"][0]["difference"]["high"] < 0.0
    for number in range(2):
        mine = columns.context == number
        assert by_name[f"user-{number}"].candidate == pytest.approx(truth[mine, 1].mean(), abs=0.05)


def test_only_the_contexts_with_the_most_decisions_are_listed_and_the_same_each_time():
    columns, _ = log_of(500, contexts=9)
    first, again = (found(columns, "b:1", "exp3", contexts=4) for _ in range(2))
    assert len(first.candidates[0].contexts) == 4
    assert first == again, "the same question has the same answer"


@pytest.mark.parametrize(
    ("rows", "missing", "texts", "said"),
    [(0, 1.0, ["b:1"], "decisions"), (50, 1.0, ["b:1"], "decisions"), (50, 0.0, [], "no candidate")],
    ids=["no decision", "no feedback", "no candidate"],
)
def test_what_is_no_question_is_refused(rows, missing, texts, said):
    columns, _ = log_of(50, missing=missing)
    with pytest.raises(InvalidSetting, match=said):
        found(columns.take(slice(0, rows)), *texts)


def test_a_learning_candidate_is_warned_of_models_that_were_never_scored():
    learner = LearningPolicy(policy=make_policy("exp3"), models=("a:1", "b:1"))

    def learned(*shares):
        columns, _ = log_of(1_000, shares=shares, means=(0.4, 0.3))
        return evaluate("digits", in_chunks(columns, 500), [learner], Question()).candidates[0]

    assert learned(1.0, 0.0).verdict == "unknown"
    assert "never was all asked that it would ask" in learned(1.0, 0.0).warnings[0]
    assert not any("never" in warning for warning in learned(0.5, 0.5).warnings)


@pytest.mark.parametrize("text", ["exp3", "b:1"])
def test_of_a_log_whose_models_followed_a_rule_that_it_does_not_hold_the_verdict_is_unknown(text):
    """Hard queries went to one model, easy ones to the other, which is as good: it seemed better."""
    shares = np.tile([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], (1_000, 1))
    columns, _ = log_of(2_000, shares=shares, means=(0.5, 0.2, 0.5))
    (candidate,) = [parse_candidate(text, MODELS[:2])]
    one = evaluate("digits", in_chunks(columns, 500), [candidate], Question(courses=1)).candidates[0]
    assert (one.difference.high < 0.0, one.verdict) == (True, "unknown")
    assert "a rule that the log does not hold chose them" in one.warnings[0]
    assert 0.2 < one.unknown < 0.6


def test_of_models_deployed_one_after_the_other_each_is_judged_by_its_own_time():
    """Queries get easier: the later model is not called better for that, nor is anything said to be hidden."""
    shares = np.repeat([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], 1_000, axis=0)
    columns, _ = log_of(2_000, shares=shares, means=(0.5, 0.2, 0.5))
    result = found(replace(columns, revision=np.repeat([1, 2], 1_000).astype(np.int32)), "a:1", "b:1")
    for one in result.candidates:
        assert (one.verdict, one.warnings, one.difference.value) == ("not told apart", (), 0.0)
    assert "model b:1 is judged by 999 of 1,999 decisions" in "".join(result.notes)


@pytest.mark.parametrize(("loss", "unit"), [("absolute:50.0", 50.0), ("squared:50.0", 2_500.0)])
def test_a_regression_is_told_in_the_unit_of_its_labels(loss, unit):
    columns, _ = log_of(2_000, contexts=2)
    plain, scaled = found(columns, "b:1"), found(columns, "b:1", loss=loss)
    one, other = plain.candidates[0], scaled.candidates[0]
    for estimate, numbers in ((one.loss, other.loss), (one.difference, other.difference)):
        assert numbers == estimate.times(unit)
    assert other.contexts[1].difference == one.contexts[1].difference.times(unit)
    assert other.series.loss == pytest.approx([unit * each for each in one.series.loss], nan_ok=True)
    assert (one.verdict, scaled.measure) == (other.verdict, f"mean {loss.partition(':')[0]} error")
    assert "Losses are in the unit of the labels; a difference of 50 or more counts as 50." in scaled.notes
    assert any("set a larger loss_scale" in note for note in scaled.notes), "all that is lost stands at the bound"


def test_feedback_that_depends_on_the_served_model_leaves_the_verdict_unknown():
    said = [found(log_of(4_000, missing=(share, 0.3, share))[0], "b:1") for share in (0.0, 0.3)]
    assert [one.candidates[0].verdict for one in said] == ["unknown", "better"]
    assert [any("more than chance explains" in note for note in one.notes) for one in said] == [True, False]


def test_few_decisions_that_carry_the_estimate_are_weighed_to_a_sum_of_one_and_stay_within_the_losses():
    few, _ = log_of(2_000, shares=(0.996, 0.003, 0.001), means=(0.0, 1.0, 0.5), seed=3)
    one = found(few, "b:1").candidates[0]
    assert (one.headline, one.standing.carrying < 100) == ("sndr", True)
    assert all(0.0 <= each.value <= 1.0 for each in one.estimates.values())
    assert all(0.0 <= loss <= 1.0 for loss in one.series.loss if not math.isnan(loss))


def test_of_a_learning_candidate_it_is_said_how_many_decisions_it_is_judged_by():
    late = found(log_of(2_000, delay_ms=5_000)[0], "exp3").candidates[0]
    assert late.horizon == pytest.approx(2_000 * 0.2, abs=100), "as often as the least probable model was asked"
    assert late.made_by == f"rejection, first {late.horizon:,}"


def test_a_candidate_of_models_that_were_never_asked_is_unknown_and_not_zero():
    columns, _ = log_of(500, shares=(0.5, 0.5), means=(0.3, 0.2))
    ensemble = LearningPolicy(policy=make_policy("exp4"), models=("a:1", "c:1"))
    one = evaluate("digits", in_chunks(columns, 100), [ensemble], Question()).candidates[0]
    assert math.isnan(one.loss.value)
    assert "audit_ratio" in one.warnings[0]
