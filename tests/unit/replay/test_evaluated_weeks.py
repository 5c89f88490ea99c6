"""Evaluations of weeks with deploys, canaries, promotions and retirements, whose truth is known."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from builders.decision_files import write_decisions
from builders.weeks import LOSSES, START_MS, STEP_MS, Week, version

from clipper_agents.control.changes import abort, delete, deploy, promote, retire, step, update
from clipper_agents.replay.evaluate import LogFile, evaluate_file
from clipper_agents.replay.export import configuration_of
from clipper_agents.replay.log_reading import NoSuchApplication, manifests_until
from clipper_stream.evaluation.candidates.candidate_text import parse_candidate
from clipper_stream.evaluation.evaluate import evaluate
from clipper_stream.evaluation.log.joint_propensity import joint_propensity
from clipper_stream.evaluation.question import Question

DAY = 450
CHOSEN = {
    "a:1": lambda models: {"a:1": 1.0},
    "b:1": lambda models: {"b:1": 1.0},
    "split": lambda models: dict.fromkeys(models, 1 / len(models)),
}
"""Whom candidates choose among the application's models: the floor, the promoted version, and as the log did."""


def a_week(seed, policy):
    """A version is deployed, run as a canary of three shares and promoted, another is aborted, and one is retired."""
    at = Week(seed, 8 * DAY, policy).ask(DAY)
    at.do(deploy, version("b:1"), "canary", 0.1).ask(60, unready=("b:1",)).ask(DAY)
    at.do(step, "b:1", 0.25).ask(DAY).do(step, "b:1", 0.5).ask(DAY)
    at.do(promote, "b:1").ask(DAY)
    at.do(deploy, version("d:1"), "shadow", 0.5).ask(DAY // 2).do(step, "d:1", 0.2).ask(DAY // 2)
    return at.do(abort, "d:1").ask(DAY).do(retire, "c:1").ask(DAY)


@pytest.mark.parametrize("seeds", [8, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
@pytest.mark.parametrize("policy", ["split", "epsilon_greedy"])
def test_intervals_of_a_week_of_changes_hold_the_truth_and_nothing_untrue_is_warned_of(seeds, policy):
    missed, warned = Counter(), []
    for seed in range(seeds):
        at = a_week(seed, policy)
        columns, texts = at.columns(), [*CHOSEN][: 3 if policy == "split" else 2]
        candidates = [parse_candidate(text, columns.models) for text in texts]
        found = evaluate("shop", lambda log=columns: [log], candidates, Question(estimators=("dr", "sndr")))
        for text, one in zip(texts, found.candidates, strict=True):
            mine, logged = at.truth_of(CHOSEN[text])
            missed[text] += not one.loss.covers(mine)
            missed[f"{text} less"] += not one.difference.covers(mine - logged)
            warned += one.warnings
        missed["logged"] += not found.logged.loss.covers(at.truth_of(lambda _: {})[1])
        warned += [note for note in found.notes if "chance explains" in note]
    assert max(missed.values()) <= 0.08 * seeds + (2 if seeds < 100 else 0), missed
    assert len(warned) <= seeds // 50, warned


PAIR = ("a:1", "d:1")


def test_of_a_finished_canary_no_pair_is_dropped(tmp_path):
    """It was worse than the floor, and was taken back: today nothing is on trial."""
    at = Week(3, 5 * DAY).ask(DAY).do(deploy, version("d:1"), "canary", 0.2).ask(DAY)
    at.do(step, "d:1", 0.3).ask(DAY).do(step, "d:1", 0.5).ask(DAY).do(abort, "d:1").ask(DAY)
    columns = at.columns()
    pairs, today = columns.of_models(PAIR).asked.all(axis=1), max(columns.configs)
    assert np.array_equal(joint_propensity(columns, PAIR) > 0.0, pairs)
    assert not joint_propensity(replace(columns, configs={today: columns.configs[today]}), PAIR).any()
    file = write_decisions(tmp_path / "week.parquet", columns, application="shop", configs=columns.configs)
    found = evaluate_file(LogFile.opened(file), ["ensemble a:1=1+d:1=2"], Question())
    (one,) = found.candidates
    mine, logged = at.truth_of(lambda _: {"d:1": 1.0})
    assert one.loss.covers(mine)
    assert one.difference.covers(mine - logged)
    assert (one.verdict, one.warnings) == ("worse", ())
    assert any("is judged by" in note for note in found.notes)


def test_a_policy_is_judged_by_the_candidates_of_the_time(tmp_path):
    """All week the policy asked one after the other; it would have been the same had it been asked for by name."""
    at = Week(5, 3 * DAY, audit_ratio=0.2).ask(DAY).do(deploy, version("b:1"), "live").ask(DAY)
    at.do(retire, "a:1").ask(DAY)
    columns = at.columns()
    file = write_decisions(tmp_path / "week.parquet", columns, application="shop", configs=columns.configs)
    question = Question(courses=1)
    split, single, learner = evaluate_file(LogFile.opened(file), ["split", "single", "exp3"], question).candidates
    assert split.loss.covers(at.truth_of(CHOSEN["split"])[0])
    assert single.loss.covers(at.truth_of(lambda models: {models[0]: 1.0})[0])
    assert [one.warnings for one in (split, single)] == [(), ()]
    assert learner.headline == "rejection"
    assert min(LOSSES.values()) < learner.loss.value < max(LOSSES.values())


def test_labels_are_compared_as_at_the_end_and_each_decision_has_its_own_configuration():
    at = Week(0, 30, loss="absolute").ask(10).do(update, {"loss_scale": 50.0, "confidence_threshold": 0.5}).ask(10)
    at.do(deploy, version("b:1"), "canary", 0.3).do(deploy, version("d:1"), "shadow", 0.25)
    ends_ms = [START_MS + STEP_MS * number for number in (5, 10, 11)]
    found = [manifests_until(at.control, "shop", until_ms) for until_ms in [*ends_ms, None]]
    assert [loss for _, loss in found] == ["absolute", "absolute", "absolute:50.0", "absolute:50.0"]
    configs = {number: configuration_of(one, "absolute") for number, one in found[0][0].items()}
    assert [one.confidence_threshold for one in configs.values()] == [0.0, 0.5, 0.5, 0.5]
    assert [dict(one.trials) for one in configs.values()][1:] == [
        {}, {"b:1": (0.0, 0.3)}, {"b:1": (0.0, 0.3), "d:1": (0.75, 1.0)},
    ]  # fmt: skip
    gone = at.do(delete).control
    assert manifests_until(gone, "shop", None)[1] == "absolute:50.0", "a deleted application can be evaluated too"
    with pytest.raises(NoSuchApplication, match="'shop-2'"):
        manifests_until(gone, "shop-2", None)
