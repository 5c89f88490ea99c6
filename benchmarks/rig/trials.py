"""Trials of a version in worlds that are not the same all the time: who errs, who is asked, what feedback comes when.

Rules of this file:
- The evidence and the rule are the product's own. Everything else is drawn here from one seed.
- A verdict is wrong by the mean difference of the queries that it was made of: a promotion where that is not below the
  margin, an abort where it is not above it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from clipper_agents.rollout.comparison_spec import TrialShare
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import SelectionState
from clipper_stream.sequential_testing.rollout_rule import TrialRule, judge
from clipper_stream.sequential_testing.trial_evidence import Kind, OpenDecision, TrialDecision, TrialEvidence

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Draw: TypeAlias = np.random.Generator
Places: TypeAlias = npt.NDArray[np.intp]

QUERIES_A_SECOND, LOOK_EVERY = 20, 100
AGREE = 0.7
"""Share of the queries that are as hard for both versions."""
NEVER = math.inf
AT_A_TIME = 50
"""Contexts whose sessions are under way."""


class End(NamedTuple):
    """How a trial ended.

    Attributes:
        action: `promote`, `abort` or `wait`.
        feedbacks: Of the application, about whichever query, until then.
        wrong: Whether the verdict was wrong.
        why: What the rule said last.
    """

    action: str
    feedbacks: int
    wrong: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What one seed makes of a scenario: a value a query.

    Attributes:
        live: Losses of the models' answer.
        trial: Losses of the trial.
        difference: Of their means, trial less live.
        share: Probability of asking the trial.
        live_after: Queries until the feedback about the models' answer comes; infinite: never.
        trial_after: The same of the trial's.
        silent: Whether the trial does not answer.
        drawn: True probability of asking it, if the log's share is not the true one.
        context: Of each query, where contexts are drawn; None: each query draws.
    """

    live: Floats
    trial: Floats
    difference: Floats
    share: Floats
    live_after: Floats
    trial_after: Floats
    silent: Bools
    drawn: Floats
    context: Places | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A world's parameters.

    Attributes:
        worse: How much more loss the trial has than the answers, by query number.
        hard: Mean loss of the answers, by query number.
        share: Probability of asking the trial, by query number.
        kind: `label` or `reward`.
        after: Queries until a feedback comes, given a generator, the losses and whose they are: `live` or `trial`.
        silent: Whether the trial does not answer a query, by query number.
        really: The probability of asking it, as a multiple of the share.
        queries: How many there are.
        horizon: After so many queries no feedback counts.
        sampled: Whether the application says that its feedback is about a random sample.
        others: Share of the queries that another canary answers.
        bandit: Whether the answers are those of `exp3`, of two models of which the other loses 0.2 more; `worse` counts
            from the better one then.
        contexts: How many contexts there are, each drawn once; 0: each query draws.
        session: A context asks so many queries, of 50 contexts in turn, and never again; 0: it asks at any time.
        spread: How much harder half of the contexts are, and how much easier the other half.
        uneven: How much worse the trial is in half of the contexts, and how much better in the other half.
        window_s: Of a context's mean loss; None: its queries count as if each had drawn.
    """

    name: str
    worse: Callable[[Floats], Floats]
    hard: Callable[[Floats], Floats]
    share: Callable[[Floats], Floats]
    kind: Kind = "reward"
    after: Callable[[Draw, Floats, str], Floats] = lambda _, losses, __: np.full(len(losses), 200.0)
    silent: Callable[[Draw, Floats], Bools] = lambda _, number: np.zeros(len(number), bool)
    really: float = 1.0
    queries: int = 20_000
    horizon: int = 8_000
    sampled: bool = False
    others: float = 0.0
    bandit: bool = False
    contexts: int = 0
    session: int = 0
    spread: float = 0.0
    uneven: float = 0.0
    window_s: float | None = None

    def world(self, seed: int) -> World:
        """Draw one."""
        draw, number = np.random.default_rng([seed, len(self.name)]), np.arange(float(self.queries))
        hard, worse, share = self.hard(number), self.worse(number), self.share(number)
        context, mean = None, worse
        if self.contexts:
            context = draw.integers(self.contexts, size=self.queries)
            if self.session:
                turn = AT_A_TIME * self.session
                context = (number // turn * AT_A_TIME + number % AT_A_TIME).astype(int) % self.contexts
            harder, uneven = (draw.permutation(self.contexts) % 2 * 2 - 1 for _ in range(2))
            hard, worse = hard + self.spread * harder[context], worse + self.uneven * uneven[context]
        luck = draw.random(self.queries)
        others = np.where(draw.random(self.queries) < AGREE, luck, draw.random(self.queries))
        failing = np.clip(hard + worse, 0.0, 1.0)
        if self.bandit:
            hard = hard + 0.2 * _asks_the_worse(draw, luck, hard)
        live, trial = (luck < hard).astype(float), (others < failing).astype(float)
        return World(
            live=live,
            trial=trial,
            difference=failing - hard if context is None else mean,
            share=share,
            live_after=self.after(draw, live, "live"),
            trial_after=self.after(draw, trial, "trial"),
            silent=self.silent(draw, number),
            drawn=share * self.really,
            context=context,
        )


def run(scenario: Scenario, seed: int, rule: TrialRule) -> End:
    """One trial: a canary from the first query on, promoted by the rule or aborted, or neither."""
    world, window_s = scenario.world(seed), scenario.window_s or 0.0
    evidence = TrialEvidence(rule.margin, sampled=scenario.sampled, window_s=window_s)
    drawn = np.random.default_rng([seed, 7]).random(scenario.contexts or scenario.queries)
    drawn = drawn if world.context is None else drawn[world.context]
    asked = drawn < world.drawn
    opened: list[OpenDecision | None] = []
    coming = _coming(scenario, world, asked)
    arrival = next(coming, None)
    feedbacks, given_up, why = 0, 0, ""
    for number in range(scenario.queries):
        elsewhere = drawn[number] >= 1.0 - scenario.others
        opened.append(None if elsewhere else evidence.decide(_decision(scenario, world, number, float(drawn[number]))))
        while arrival is not None and arrival[0] <= number:
            one = opened[arrival[1]]
            feedbacks += one is not None or window_s > 0.0
            if one is not None:
                _learn(scenario, world, evidence, one, arrival[1])
                opened[arrival[1]] = None
            arrival = next(coming, None)
        while given_up < number - scenario.horizon:
            if (late := opened[given_up]) is not None:
                evidence.give_up(late)
            given_up += 1
        if number % LOOK_EVERY == 0:
            verdict = judge(rule, "canary", rule.steps[-1], evidence, number // QUERIES_A_SECOND)
            why = verdict.why
            if verdict.action != "wait":
                return End(verdict.action, feedbacks, _wrong(verdict.action, scenario, world, rule, number), why)
    return End("wait", feedbacks, wrong=False, why=why)


def _asks_the_worse(draw: Draw, luck: Floats, hard: Floats) -> Bools:
    """Whether `exp3` asks the model that loses 0.2 more, and learns from each loss before the next query."""
    policy, state, models = make_policy("exp3"), SelectionState(), ["good:1", "bad:1"]
    found = np.zeros(len(luck), bool)
    for number, (one, level, chance) in enumerate(zip(luck, hard, draw.random(len(luck)), strict=True)):
        good = policy.weights(state, models)["good:1"]
        found[number] = chance >= good
        ref, asked = ("bad:1", 1.0 - good) if found[number] else ("good:1", good)
        loss = float(one < level + 0.2 * found[number])
        state = policy.observe(state, {ref: loss}, {ref: asked})
    return found


def _coming(scenario: Scenario, world: World, asked: Bools) -> Iterator[tuple[float, int]]:
    """When feedback about which query comes, in order of time."""
    after = np.where(asked, world.trial_after, world.live_after)
    if scenario.kind == "label":
        after = np.where(asked, np.maximum(world.trial_after, world.live_after), world.live_after)
    at = np.arange(scenario.queries) + after
    order = np.argsort(at, kind="stable")
    return ((float(at[one]), int(one)) for one in order if after[one] <= scenario.horizon)


def _decision(scenario: Scenario, world: World, number: int, drawn: float) -> TrialDecision:
    share, asked = float(world.share[number]), drawn < world.drawn[number]
    seen = TrialDecision(
        second=number // QUERIES_A_SECOND,
        share=share / (1.0 - scenario.others),
        asked=bool(asked),
        canary=True,
        silent=bool(asked and world.silent[number]),
    )
    if scenario.window_s is None:
        return seen
    before = float(world.share[:number][world.share[:number] < share].max(initial=0.0))
    if drawn < before:
        return replace(seen, canary=False, scored=False)
    known = TrialShare(share, canary=True, others=0.0, audited=0.0, part=share, before=before)
    return replace(seen, context=share + drawn, share=known.probability(redrawn=True))


def _learn(scenario: Scenario, world: World, evidence: TrialEvidence, one: OpenDecision, number: int) -> None:
    trial = float(world.trial[number]) if one.decision.asked and not one.decision.silent else None
    live = float(world.live[number]) if scenario.kind == "label" or not one.decision.asked else None
    evidence.learn(one, scenario.kind, trial, live)


def _wrong(action: str, scenario: Scenario, world: World, rule: TrialRule, number: int) -> bool:
    """By the mean difference up to here, weighted as the scores are."""
    share = world.share[: number + 1]
    weight = share if scenario.kind == "label" else share * (1.0 - share)
    mean = float(np.sum(weight * world.difference[: number + 1]) / np.sum(weight))
    return mean > rule.margin - 1e-12 if action == "promote" else mean < rule.margin + 1e-12
