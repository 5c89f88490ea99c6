"""How often is a verdict wrong in the worlds that once fooled it?

    python benchmarks/fooled_verdicts.py               # a few minutes; simulated and seeded
    python benchmarks/fooled_verdicts.py --seeds 20    # fewer; wrong-decisions.md has figures

Trials are those of a shadow that is asked beside the models' answer, one query a second, with feedback to each at once;
evaluations are those of a log of 2,000 decisions. A world ends in one word a seed.
"""

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from learning_candidates import columns

from clipper_agents.rollout.comparison_spec import ComparisonSpec, TrialShare, TrialSpec, needs_history
from clipper_agents.rollout.query_losses import losses_of
from clipper_agents.rollout.trial_evidence import ApplicationEvidence, OpenTrial
from clipper_stream.drift.adwin import Adwin
from clipper_stream.drift.loss_watch import LossWatch
from clipper_stream.evaluation.candidates.candidate_text import parse_candidate
from clipper_stream.evaluation.evaluate import evaluate
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.question import Question
from clipper_stream.feedback.update import GivenLoss, Label, LoggedDecision
from clipper_stream.sequential_testing.rollout_rule import TrialRule
from clipper_topics.manifests import Trial

ROWS = 2_000
LIVE, NEW = "live:1", "new:1"
Floats = np.ndarray
Draw = np.random.Generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--only", default="", help="worlds whose name has this in it")
    options = parser.parse_args()
    print("| world | wrong | ends |\n|---|---|---|")
    for world in WORLDS:
        if options.only in world.name:
            ends = Counter(map(world.end, range(options.seeds)))
            wrong = sum(ends[one] for one in world.wrong) / options.seeds
            print(f"| {world.name} | {wrong:.1%} | {', '.join(f'{n} {one}' for one, n in ends.most_common())} |")
    print(f"\nRoot mean square error of the headline where few decisions carry it: {few_carrying(options.seeds):.2f}")


@dataclass(frozen=True, slots=True)
class World:
    """What one seed makes of it, and which ends are wrong."""

    name: str
    end: Callable[[int], str]
    wrong: tuple[str, ...]


# --- trials -----------------------------------------------------------------------------------------------------------
def spec_of(
    loss: str, revision: int = 1, *, margin: float = 0.02, canary: bool = False, attempt: int = 1
) -> ComparisonSpec:
    trial = Trial(model=NEW, stage="canary" if canary else "shadow", share=0.5 if canary else 1.0, automatic=True)
    share = TrialShare(trial.share, canary, 0.0, 0.0)
    one = TrialSpec(trial=trial, since=revision, step_since=revision, shares={revision: share}, attempt=attempt)
    return ComparisonSpec(
        application="digits",
        revision=revision,
        rule=TrialRule(steps=(0.5,), margin=margin),
        loss=loss,
        learns_scale=loss == "absolute",
        trials=(one,),
        candidates=(LIVE,),
        sampled=False,
        lone=True,
        objective_ms=None,
        candidates_since=revision,
        keep_best=None,
        drift=None,
        begins_ms=0,
    )


def errors_end(
    live: Callable[[Draw], float], new: Callable[[Draw], float], seed: int, label_margin: float | None = None
) -> str:
    """The end of a trial by 2,000 labels from which the outputs are so far away."""
    draw, evidence, number = np.random.default_rng(seed), ApplicationEvidence(spec_of("absolute"), math.inf), 0
    for number in range(2_000):
        outputs = {LIVE: live(draw), NEW: new(draw)}
        decision = LoggedDecision(outputs=outputs, propensities=dict.fromkeys(outputs, 1.0), served=(LIVE,))
        decision = replace(decision, answer=outputs[LIVE])
        learned(evidence, decision, Label(0.0), number)
        for found in evidence.decisions() if number % 10 == 0 else ():
            if found.command != "scale":
                return found.command
            scale = found.numbers["loss_scale"]
            margin = 0.02 if label_margin is None else label_margin / scale
            evidence.follow(spec_of(f"absolute:{scale:g}", evidence.spec.revision + 1, margin=margin))
    return "undecided"


def learned(evidence: ApplicationEvidence, decision: LoggedDecision, feedback: Label | GivenLoss, second: int) -> None:
    spec = evidence.spec
    losses = losses_of(decision, feedback, spec.candidates, spec.loss)
    for opened in evidence.decide(spec.since, decision, {}, second * 1_000):
        opened.learn(losses, "label" if isinstance(feedback, Label) else "reward")


def rewards_end(seed: int) -> str:
    """The end of a canary of a half that is better by 0.1: one label comes first, and then 8,000 rewards."""
    draw, evidence = np.random.default_rng(seed), ApplicationEvidence(spec_of("zero_one", canary=True), math.inf)
    for second in range(8_000):
        served = NEW if draw.random() < 0.5 or not second else LIVE
        loss = float(draw.random() < (0.2 if served == NEW else 0.3))
        asked = {NEW: 0.5, LIVE: 1.0} if served == NEW else {LIVE: 1.0}
        outputs = {ref: number for number, ref in enumerate(asked)}
        decision = LoggedDecision(outputs=outputs, propensities=asked, served=(served,), answer=1)
        decision = replace(decision, served_propensity=0.5)
        learned(evidence, decision, GivenLoss(loss) if second else Label(1), second)
        if second % 100 == 0 and (found := [*evidence.decisions()]):
            return found[0].command
    return "undecided"


def attempts_end(seed: int) -> str:
    """Whether a version that is worse by the margin itself is stepped up in one of twenty trials, 1,000 pairs each."""
    for attempt in range(1, 21):
        if paired_end(spec_of("zero_one", attempt=attempt), np.random.default_rng([seed, attempt])) == "step":
            return "step"
    return "never"


def at_once_end(seed: int) -> str:
    """Whether one of ten versions that are worse by the margin itself, tried at once, is stepped up."""
    spec = spec_of("zero_one")
    spec = replace(spec, trials=(replace(spec.trials[0], at_once=10),))
    ends = (paired_end(spec, np.random.default_rng([seed, number])) for number in range(10))
    return "step" if "step" in ends else "never"


def rare_end(seed: int, relative: float = 1.0) -> str:
    """The end of a shadow that fails 10 times in 1,000, where the answers fail twice, and 4 are allowed."""
    spec = replace(spec_of("zero_one"), rule=TrialRule(steps=(0.5,), relative=relative))
    return paired_end(spec, np.random.default_rng(seed), 8_000, worse=0.008, live=0.002)


def sampled_end(seed: int) -> str:
    """The end of a canary of a half that is worse by 0.05, where nobody hears of half of its failures."""
    draw = np.random.default_rng(seed)
    evidence = ApplicationEvidence(replace(spec_of("zero_one", canary=True), sampled=True), 100.0)
    waiting: list[tuple[int, OpenTrial]] = []
    for second in range(4_000):
        served = NEW if draw.random() < 0.5 else LIVE
        loss = float(draw.random() < (0.35 if served == NEW else 0.3))
        asked = {NEW: 0.5, LIVE: 1.0} if served == NEW else {LIVE: 1.0}
        decision = LoggedDecision(outputs=dict.fromkeys(asked, 1), propensities=asked, served=(served,), answer=1)
        decision = replace(decision, served_propensity=0.5)
        if served == LIVE or not loss or draw.random() < 0.5:
            learned(evidence, decision, GivenLoss(loss), second)
        else:
            opened = evidence.decide(1, decision, {}, second * 1_000)
            waiting += ((second + 160, one) for one in opened if isinstance(one, OpenTrial))
        while waiting and waiting[0][0] < second:
            waiting.pop(0)[1].give_up()
        if second % 100 == 0 and (found := [*evidence.decisions()]):
            return found[0].command
    return "undecided"


def apart_end(seed: int) -> str:
    """Whether the difference that is shown lies in its interval: one answer in ten has a label, where both differ."""
    draw, evidence = np.random.default_rng(seed), ApplicationEvidence(spec_of("zero_one"), math.inf)
    for second in range(1_000):
        differ = draw.random() < 0.1
        outputs = {LIVE: 0, NEW: int(differ)}
        decision = LoggedDecision(outputs=outputs, propensities=dict.fromkeys(outputs, 1.0), served=(LIVE,))
        decision = replace(decision, answer=0)
        if differ:
            learned(evidence, decision, Label(int(draw.random() < 0.4)), second)
        else:
            evidence.decide(1, decision, {}, second * 1_000)
    shown = evidence.comparisons()[0]
    return "within" if shown.lower <= shown.difference <= shown.upper else "outside"


def paired_end(
    spec: ComparisonSpec, draw: Draw, count: int = 1_000, worse: float | None = None, live: float = 0.05
) -> str:
    evidence = ApplicationEvidence(spec, math.inf)
    worse = spec.rule.margin if worse is None else worse
    for number, decision in enumerate(pairs(draw, count, worse, live)):
        learned(evidence, decision, Label(0), number)
        if number % 20 == 0 and (found := [*evidence.decisions()]):
            return found[0].command
    return "undecided"


def pairs(draw: Draw, count: int, worse: float, live: float = 0.05) -> Iterator[LoggedDecision]:
    for _ in range(count):
        answers = {LIVE: int(draw.random() < live), NEW: int(draw.random() < live + worse)}
        decision = LoggedDecision(outputs=answers, propensities=dict.fromkeys(answers, 1.0), served=(LIVE,))
        yield replace(decision, answer=answers[LIVE])


def restart_end(seed: int) -> str:
    """Whether a controller that restarts after the margin was changed comes to another decision."""
    spec = spec_of("zero_one")
    changed = replace(spec, revision=2, rule=replace(spec.rule, margin=0.1))
    running, restarted = ApplicationEvidence(spec, math.inf), ApplicationEvidence(changed, math.inf)
    for number, decision in enumerate(pairs(np.random.default_rng(seed), 400, 0.0)):
        for evidence in (running, restarted):
            learned(evidence, decision, Label(0), number)
    if needs_history({"digits": spec}, {"digits": changed}, {"digits": 1}):
        running = restarted
    running.follow(changed)
    found = [[one.command for one in evidence.decisions()] for evidence in (running, restarted)]
    return "the same" if found[0] == found[1] else "another"


def silent_end(seed: int, *, asked: bool) -> str:
    """The end of a trial whose host never answers, or is never ready to be asked, within two hours."""
    evidence = ApplicationEvidence(spec_of("zero_one"), math.inf)
    for second in np.random.default_rng(seed).uniform(0, 7_200, 400).cumsum() / 200:
        propensities = dict.fromkeys((LIVE, NEW) if asked else (LIVE,), 1.0)
        decision = LoggedDecision(outputs={LIVE: 1}, propensities=propensities, served=(LIVE,), answer=1)
        evidence.decide(1, decision, {}, int(second * 1_000))
        if found := [*evidence.decisions()]:
            return found[0].command
    return "undecided"


# --- drift ------------------------------------------------------------------------------------------------------------
DAY, DAYS, RISES = 8_640, 21, 14
"""Losses a day, one each ten seconds; of three weeks, whose mean rises after two."""


def drift_end(seed: int, rise: float) -> str:
    """When losses, whose mean swings by 0.1 to either side of 0.3 each day, are called changed."""
    draw, at = np.random.default_rng(seed), np.arange(DAYS * DAY)
    means = 0.3 + 0.1 * np.sin(2 * np.pi * (at / DAY + draw.random())) + rise * (at >= RISES * DAY)
    watch, losses = LossWatch(Adwin), (draw.random(len(at)) < means).astype(float).tolist()
    found = next((number for number, loss in enumerate(losses) if watch.observe(loss, number * 24 // DAY % 24)), None)
    if found is None:
        return "quiet"
    return "alarm" if not rise or found < RISES * DAY else "in a day" if found < (RISES + 1) * DAY else "late"


# --- evaluations ------------------------------------------------------------------------------------------------------
def log(losses: Floats, served: Floats, propensity: Floats | float, heard: Floats | None = None) -> DecisionColumns:
    """A log of two models, of which one served each query."""
    rows, chosen = len(losses), np.eye(3, dtype=bool)[served]
    whole = np.column_stack([losses, np.ones(rows)])
    chance = np.broadcast_to(propensity, rows)
    found = columns(whole, np.where(chosen, chance[:, None], 0.0), chosen, chance, rows * 1_000)
    answered = whole[np.arange(rows), served]
    known = np.ones(rows, bool) if heard is None else heard
    return replace(
        found,
        answer_loss=np.where(known, answered, np.nan),
        loss=np.where(known[:, None], found.loss, np.nan),
        label=np.where(known, 0, -1).astype(np.int32),
        feedback_at_ms=np.where(known, found.feedback_at_ms, -1),
        feedback_offset=np.where(known, found.feedback_offset, -1),
    )


def verdict_of(logged: DecisionColumns, text: str, seed: int) -> str:
    candidate = parse_candidate(text, logged.models[:2])
    return evaluate("digits", lambda: [logged], [candidate], Question(seed=seed, courses=1)).candidates[0].verdict


def deployments(seed: int, text: str) -> str:
    """One model after the other, as good as it; queries get easier."""
    draw, served = np.random.default_rng(seed), np.repeat([0, 1], ROWS // 2)
    losses = (draw.random((ROWS, 2)) < np.where(served == 0, 0.5, 0.3)[:, None]).astype(float)
    return verdict_of(log(losses, served, 1.0), text, seed)


def hidden_rule(seed: int, text: str) -> str:
    """Hard queries go to one model, easy ones to the other, by a rule that the log does not hold."""
    draw = np.random.default_rng(seed)
    served = (draw.random(ROWS) < 0.5).astype(int)
    losses = (draw.random((ROWS, 2)) < np.where(served == 0, 0.6, 0.1)[:, None]).astype(float)
    return verdict_of(log(losses, served, 1.0), text, seed)


def unheard_failures(seed: int) -> str:
    """A model that loses 0.35 beside one that loses 0.3; nobody hears of a third of its failures."""
    draw = np.random.default_rng(seed)
    served = (draw.random(ROWS) < 0.5).astype(int)
    losses = (draw.random((ROWS, 2)) < (0.3, 0.35)).astype(float)
    heard = ~((served == 1) & (losses[:, 1] == 1.0) & (draw.random(ROWS) < 0.45))
    return verdict_of(log(losses, served, 0.5, heard), "middling:1", seed)


def few_carrying(seeds: int) -> float:
    """Error of the headline about a model that was asked by one query in 50, and at times by one in 5,000."""
    errors = []
    for seed in range(seeds):
        draw = np.random.default_rng(seed)
        asked = np.where(np.arange(ROWS) % 2, 1 / 50, 1 / 5_000)
        served = (draw.random(ROWS) < asked).astype(int)
        if served.sum():
            losses = (draw.random((ROWS, 2)) < (0.3, 0.4)).astype(float)
            logged = log(losses, served, np.where(served == 1, asked, 1.0 - asked))
            candidate = parse_candidate("middling:1", logged.models[:2])
            found = evaluate("digits", lambda one=logged: [one], [candidate], Question(seed=seed)).candidates[0]
            errors.append(found.loss.value - 0.4)
    return float(np.sqrt(np.mean(np.square(errors))))


def about(error: float) -> Callable[[Draw], float]:
    return lambda draw: error * draw.uniform(0.8, 1.2)


def rare(draw: Draw) -> float:
    return 10.0 if draw.random() < 0.03 else 0.2


def worlds() -> Iterator[World]:
    yield World("errors of 40 to 60 beside 4 to 6", lambda seed: errors_end(about(5.0), about(50.0), seed), ("step",))
    yield World("errors of 0.2, and 10 for 3 %, beside 0.3", lambda seed: errors_end(about(0.3), rare, seed), ("step",))
    name = "the same, where 0.1 of the label's unit is allowed"
    yield World(name, lambda seed: errors_end(about(0.3), rare, seed, label_margin=0.1), ("step",))
    for text in ("exp3", "middling:1"):
        yield World(f"deployments one after another, {text}", lambda s, t=text: deployments(s, t), ("better", "worse"))
        yield World(f"a hidden rule of routing, {text}", lambda s, t=text: hidden_rule(s, t), ("better", "worse"))
    yield World("failures that nobody hears of", unheard_failures, ("better",))
    yield World("one label, then rewards", rewards_end, ("undecided", "abort"))
    yield World("another margin, and a restart", restart_end, ("another",))
    yield World("twenty attempts at the margin", attempts_end, ("step",))
    yield World("ten at once at the margin", at_once_end, ("step",))
    yield World("five times as many rare failures", rare_end, ("step",))
    yield World("a declared sample without half of the trial's failures", sampled_end, ("step", "promote"))
    yield World("labels where both differ", apart_end, ("outside",))
    yield World("a host that never answers", lambda seed: silent_end(seed, asked=True), ("undecided",))
    yield World("a daily course of the loss", lambda seed: drift_end(seed, 0.0), ("alarm",))
    yield World("the same, and a rise by 0.1", lambda seed: drift_end(seed, 0.1), ("alarm", "quiet", "late"))
    yield World("a host that is never ready", lambda seed: silent_end(seed, asked=False), ("undecided",))


WORLDS = tuple(worlds())

if __name__ == "__main__":
    main()
