"""Trials of a version in worlds that are not the same all the time: who errs, who is asked, what feedback comes when.

Rules of this file:
- The evidence and the rule are the product's own. Everything else is drawn here from one seed.
- A verdict is wrong by the mean difference of the queries that it was made of: a promotion where that is not below the
  margin, an abort where it is not above it; with a plan, an abort where it is not above 0.
- `run` is the product, query by query. `planned` and `anytime` are the same scores as arrays, for a thousand seeds;
  the boundaries are the product's own, and a test holds them to `run`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter
from scipy.special import ndtr

from clipper_agents.rollout.comparison_spec import TrialShare
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import SelectionState
from clipper_stream.sequential_testing import planned_test
from clipper_stream.sequential_testing.planned_test import DAY_S, LOOKS, RARE, boundaries, skewed
from clipper_stream.sequential_testing.rollout_rule import TrialRule, judge
from clipper_stream.sequential_testing.score_sums import BETS, WAITING_COSTS
from clipper_stream.sequential_testing.trial_evidence import (
    OF_ALL,
    RECENT,
    Kind,
    OpenDecision,
    TrialDecision,
    TrialEvidence,
)

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
        context: Number of each query's context.
    """

    live: Floats
    trial: Floats
    difference: Floats
    share: Floats
    live_after: Floats
    trial_after: Floats
    silent: Bools
    drawn: Floats
    context: Places


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
        beside: Share of the queries that the models answer and that ask the trial as a shadow.
        blind: Whether the forecast of losses does not look at contexts.
        hard_contexts: Whether one context in four is hard, and others are easy: they lose 0.6 and 0.2 more, and less.
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
    beside: float = 0.0
    blind: bool = False
    hard_contexts: bool = False
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
        context, mean = number.astype(int) % 20 if self.hard_contexts else np.zeros(self.queries, int), worse
        if self.contexts:
            context = draw.integers(self.contexts, size=self.queries)
            if self.session:
                turn = AT_A_TIME * self.session
                context = (number // turn * AT_A_TIME + number % AT_A_TIME).astype(int) % self.contexts
            harder, uneven = (draw.permutation(self.contexts) % 2 * 2 - 1 for _ in range(2))
            hard, worse = hard + self.spread * harder[context], worse + self.uneven * uneven[context]
        if self.hard_contexts:
            hard = hard + np.where(context < 5, 0.6, -0.2)
        luck = draw.random(self.queries)
        others = np.where(draw.random(self.queries) < AGREE, luck, draw.random(self.queries))
        failing = np.clip(hard + worse, 0.0, 1.0)
        if self.bandit:
            hard = hard + 0.2 * _asks_the_worse(draw, luck, hard)
        live, trial = (luck < hard).astype(float), (others < failing).astype(float)
        return World(
            live=live,
            trial=trial,
            difference=mean if self.contexts else failing - hard,
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
    evidence = TrialEvidence(
        rule.margin,
        scenario.horizon / QUERIES_A_SECOND,
        sampled=scenario.sampled,
        relative=rule.relative,
        plan=rule.plan,
        window_s=window_s,
    )
    drawn = _numbers(scenario, world, seed)
    asked, beside, elsewhere = _drawn(scenario, world, drawn)
    opened: list[OpenDecision | None] = []
    coming = _coming(scenario, world, asked | beside)
    arrival = next(coming, None)
    feedbacks, given_up, why = 0, 0, ""
    for number in range(scenario.queries):
        seen = None if elsewhere[number] else _decision(scenario, world, number, drawn, beside)
        opened.append(None if seen is None else evidence.decide(seen))
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
                action = "wait" if why.startswith("its plan is over") else verdict.action
                wrong = action != "wait" and _wrong(action, scenario, world, rule, number)
                return End(action, feedbacks, wrong, why)
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


def _numbers(scenario: Scenario, world: World, seed: int) -> Floats:
    """What each query draws, or its context."""
    drawn = np.random.default_rng([seed, 7]).random(scenario.contexts or scenario.queries)
    return drawn[world.context] if scenario.contexts else drawn


def _drawn(scenario: Scenario, world: World, drawn: Floats) -> tuple[Bools, Bools, Bools]:
    """Which queries the trial answers, which ask it besides, and which another canary answers."""
    elsewhere = drawn >= 1.0 - scenario.others
    return drawn < world.drawn, ~elsewhere & (drawn >= 1.0 - scenario.others - scenario.beside), elsewhere


def _decision(scenario: Scenario, world: World, number: int, drawn: Floats, beside: Bools) -> TrialDecision:
    share, serves, besides = float(world.share[number]), bool(drawn[number] < world.drawn[number]), bool(beside[number])
    seen = TrialDecision(
        second=number // QUERIES_A_SECOND,
        share=share / (1.0 - scenario.others - scenario.beside),
        asked=serves or besides,
        canary=not besides,
        silent=(serves or besides) and bool(world.silent[number]),
        context=str(world.context[number]) if scenario.contexts or scenario.hard_contexts else "",
    )
    if scenario.window_s is None:
        return seen
    before = float(world.share[:number][world.share[:number] < share].max(initial=0.0))
    if drawn[number] < before:
        return replace(seen, canary=False, scored=False)
    known = TrialShare(share, canary=True, others=0.0, audited=0.0, part=share, before=before)
    return replace(seen, context_drawn=share + float(drawn[number]), share=known.probability(redrawn=True))


def _learn(scenario: Scenario, world: World, evidence: TrialEvidence, one: OpenDecision, number: int) -> None:
    trial = float(world.trial[number]) if one.decision.asked and not one.decision.silent else None
    live = float(world.live[number]) if scenario.kind == "label" or not one.decision.asked else None
    evidence.learn(one, scenario.kind, trial, live)


def _wrong(action: str, scenario: Scenario, world: World, rule: TrialRule, number: int) -> bool:
    """By the mean difference up to here, weighted as the scores are."""
    share = world.share[: number + 1]
    weight = share if scenario.kind == "label" else share * (1.0 - share)
    mean = float(np.sum(weight * world.difference[: number + 1]) / np.sum(weight))
    return _is_wrong(action, rule, mean)


def _is_wrong(action: str, rule: TrialRule, mean: float) -> bool:
    if action == "promote":
        return mean > rule.margin - 1e-12
    return mean < (0.0 if rule.plan is not None else rule.margin) + 1e-12


# --- the same as arrays -----------------------------------------------------------------------------------------------
class Scores(NamedTuple):
    """The scores of a trial, in the order of their decisions: a value a score.

    Attributes:
        number: Of the query.
        weight: Of the score.
        known: Its value once feedback has come.
        low: Its least value before, and for ever without.
        high: Its greatest value.
        arrives: When feedback comes, in queries; infinite: never.
        waits: Whether feedback may make it known.
        difference: Of the true means.
        largest: How far from 0 a score may lie, so far.
    """

    number: Floats
    weight: Floats
    known: Floats
    low: Floats
    high: Floats
    arrives: Floats
    waits: Bools
    difference: Floats
    largest: Floats


def scores_of(scenario: Scenario, seed: int) -> tuple[Scores, Floats]:
    """The scores, and when feedback about any query comes."""
    world, number = scenario.world(seed), np.arange(scenario.queries)
    asked, beside, elsewhere = _drawn(scenario, world, _numbers(scenario, world, seed))
    tried = asked | beside
    after = np.where(tried, world.trial_after, world.live_after)
    if scenario.kind == "label":
        after = np.where(tried, np.maximum(world.trial_after, world.live_after), world.live_after)
    arrives = np.where(after <= scenario.horizon, number + after, np.inf)
    silent = tried & world.silent
    first = np.flatnonzero(tried & ~silent & ~elsewhere)
    seen = ~elsewhere & (number >= (first[0] if len(first) else np.inf))
    served = np.where(asked, np.where(silent, np.nan, world.trial), world.live)
    p, m = (
        world.share / (1.0 - scenario.others - scenario.beside),
        _forecasts(*(seen, arrives, served, 0 * world.context if scenario.blind else world.context)),
    )
    if scenario.kind == "label":
        counts, ones = seen & tried & ~silent, np.ones(scenario.queries)
        of = (ones, world.trial - world.live, -ones, ones, ones)
        unheard = silent
    else:
        counts = seen & ~beside
        low = np.where(asked, (1.0 - p) * (0.0 - m), -p * (1.0 - m))
        high = np.where(asked, (1.0 - p) * (1.0 - m), -p * (0.0 - m))
        known = np.where(asked, (1.0 - p) * (world.trial - m), -p * (world.live - m))
        of, unheard = (p * (1.0 - p), known, low, high, np.maximum(p, 1.0 - p) * np.maximum(m, 1.0 - m)), silent
    weight, known, low, high, largest = (one[counts] for one in of)
    heard = np.where(unheard, np.inf, arrives)[counts]
    return Scores(
        *(number[counts], weight, known, low, high, heard, ~unheard[counts], world.difference[counts]),
        np.maximum.accumulate(largest),
    ), np.sort(arrives[seen])


def _forecasts(seen: Bools, arrives: Floats, served: Floats, context: Floats) -> Floats:
    """What `LossForecast` says before each query."""
    heard = seen & np.isfinite(arrives) & ~np.isnan(served)
    total, count = _recent(heard, arrives, served)
    mean = (total + 0.5) / (count + 1.0)
    found = mean.copy()
    for one in np.unique(context) if context.any() else ():
        total, count = _recent(heard & (context == one), arrives, served)
        found = np.where(context == one, (total + OF_ALL * mean) / (count + OF_ALL), found)
    return np.clip(np.round(found, 2), 0.0, 1.0)


def _recent(heard: Bools, arrives: Floats, served: Floats) -> tuple[Floats, Floats]:
    """Sums of losses and of their number that have come before each query, with forgetting."""
    which = np.flatnonzero(heard)
    which = which[np.argsort(arrives[which], kind="stable")]
    forget = [1.0, 1.0 / RECENT - 1.0]
    before = np.searchsorted(arrives[which], np.arange(len(heard)) - 1, side="right")
    sums = (lfilter([1.0], forget, values) for values in (served[which], np.ones(len(which))))
    total, count = (np.concatenate([[0.0], one])[before] for one in sums)
    return total, count


def planned(scenario: Scenario, seed: int, rule: TrialRule) -> End:
    """The end of a trial with a plan, by its looks alone; `wait`: the plan left it undecided."""
    scores, feedbacks = scores_of(scenario, seed)
    looks = [*_looks(scenario, scores, rule)]
    fractions, sums = tuple(one.fraction for one in looks), [one.sums for one in looks]
    variances = np.maximum.accumulate([one.squares + RARE * one.largest**2 for one in sums])
    below, above = (_quickly(alpha, fractions, tuple(variances)) for alpha in (rule.alpha, rule.alpha / 2))
    for one, variance, least, most in zip(sums, variances, below, above, strict=True):
        action = "wait"
        if rule.limit * one.weight - one.high >= least + max(0.0, skewed(least, variance, one.cubes)):
            action = "promote"
        elif one.low >= most + max(0.0, -skewed(most, variance, one.cubes)):
            action = "abort"
        if action != "wait":
            count = int(np.searchsorted(feedbacks, one.number, side="right"))
            return End(action, count, _is_wrong(action, rule, one.difference), f"{action} at {one.number}")
    return End("wait", int(np.isfinite(feedbacks).sum()), wrong=False, why="its plan is over")


def _quickly(alpha: float, fractions: tuple[float, ...], variances: tuple[float, ...]) -> tuple[float, ...]:
    vars(planned_test)["_upper_tail"] = lambda x: ndtr(-x)  # the same function, ten times as fast
    return boundaries.__wrapped__(alpha, fractions, variances)


def _looks(scenario: Scenario, scores: Scores, rule: TrialRule) -> Iterator[SimpleNamespace]:
    plan, number = rule.plan, scores.number
    began = number[0] // QUERIES_A_SECOND if len(number) else 0
    counted = np.sort(np.where(scores.waits, scores.arrives, np.inf))
    before = -1.0
    parts = []
    for part in range(1, LOOKS + 1):
        at = np.inf
        if plan.feedbacks is not None and (place := math.ceil(part * plan.feedbacks / LOOKS)) <= len(counted):
            at = math.ceil(counted[place - 1]) if counted[place - 1] < np.inf else np.inf
        if plan.days is not None:
            at = min(at, QUERIES_A_SECOND * math.ceil(began + part * plan.days * DAY_S / LOOKS - 1e-9))
        if at >= scenario.queries:
            break
        parts = parts[:-1] if at == before else parts
        parts.append((part / LOOKS, int(at)))
        before = at
    for fraction, at in parts:
        sums = _sums_at(scenario, scores, at)
        if sums is not None:
            yield SimpleNamespace(fraction=fraction, sums=sums)


def _sums_at(scenario: Scenario, scores: Scores, at: int) -> SimpleNamespace | None:
    asked = scores.number <= at
    number, known = scores.number[asked], scores.arrives[asked] <= at
    over = number < at - scenario.horizon
    waiting = scores.waits[asked] & ~known & ~over
    kept = ~(over & ~known & scores.waits[asked]) if scenario.sampled else np.ones(len(number), bool)
    second = number // QUERIES_A_SECOND
    balance = np.cumsum(np.bincount(second, kept - float(WAITING_COSTS) * waiting))
    upto = len(balance) - int(np.argmax(np.append(balance[::-1], 0.0)))
    kept &= second < upto
    if not kept.any():
        return SimpleNamespace(
            weight=0.0, low=0.0, high=0.0, squares=0.0, cubes=0.0, difference=0.0, number=at, largest=1.0
        )
    weight = scores.weight[asked][kept]
    low, high = (np.where(known, scores.known[asked], one[asked])[kept] for one in (scores.low, scores.high))
    farther = np.where(-low > high, low, high)
    return SimpleNamespace(
        weight=weight.sum(),
        low=low.sum(),
        high=high.sum(),
        squares=(farther**2).sum(),
        cubes=(farther**3).sum(),
        difference=np.average(scores.difference[asked][kept], weights=weight),
        number=at,
        largest=scores.largest[asked][-1],
    )


def anytime(scenario: Scenario, seed: int, rule: TrialRule) -> End:
    """The end of a trial without a plan, in a world where feedback comes in the order of the queries."""
    scores, feedbacks = scores_of(scenario, seed)
    stakes = BETS / (1.0 + rule.margin)
    held, ends = scores.weight * rule.margin - scores.known, []
    for action, side, alpha in (("promote", held, rule.alpha), ("abort", -held, rule.alpha / 2)):
        capital = np.logaddexp.reduce([np.cumsum(np.log1p(stake * side)) for stake in stakes]) - math.log(len(stakes))
        over = np.flatnonzero((capital >= -math.log(alpha)) & np.isfinite(scores.arrives))
        if len(over):
            ends.append((scores.arrives[over[0]], action))
    if not ends:
        return End("wait", int(np.isfinite(feedbacks).sum()), wrong=False, why="")
    at, action = min(ends)
    past = scores.arrives <= at
    mean = np.average(scores.difference[past], weights=scores.weight[past])
    return End(action, int(np.searchsorted(feedbacks, at, side="right")), _is_wrong(action, rule, mean), why="")
