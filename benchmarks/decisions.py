"""How often is a trial decided wrongly, and after how many feedbacks rightly, in a world that is not always the same?

    python benchmarks/decisions.py                                           # an hour on two cores; simulated, seeded
    python benchmarks/decisions.py --page benchmarks/results/decisions.md    # and the page of the figures
    python benchmarks/decisions.py --quick                                   # few seeds; its numbers say nothing
    python benchmarks/decisions.py --planned --page benchmarks/results/planned-trials.md    # trials with a plan

The rule has its default parameters: wrong is the promotion of a version that is worse by 0.02 or more, and the abort of
one that is not, each by its mean difference up to then. Each is promised for at most 2.5 % of trials; a row may say
more by chance. Counted are feedbacks of the application, about whichever query, until a right verdict.

The trial is a canary of a fixed share from the first query on, of 20,000 at 20 a second; 7 of 10 queries are as hard
for both versions. Feedback comes 200 queries later and says how good the one answer was that was given, if the row says
nothing else; `labels` say how good both were, where both were asked.

With `--planned` the rule has a plan of 5,000 feedbacks or 15 minutes, and the confidence 0.9: wrong is a promotion as
above, and the abort of a version that is not worse; each is promised for at most 5 % of trials, and never are both
possible.
"""

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np
from rig.old_applications import costs, silences
from rig.session import page_options, parsed, write_page, write_table
from rig.trials import NEVER, Bools, Draw, End, Floats, Scenario, anytime, planned, run, scores_of

from clipper_stream.selection.distribution import ActionDistribution
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import SelectionState
from clipper_stream.sequential_testing.planned_test import DAY_S, TrialPlan
from clipper_stream.sequential_testing.rollout_rule import TrialRule

RULE = TrialRule()
PLANNED = TrialRule(confidence=0.9, plan=TrialPlan(feedbacks=5_000, days=900 / DAY_S))
POLICIES = ("exp3", "exp4", "epsilon_greedy")
POLICY_FEEDBACKS = 3_000
BATCH = 10
AT_THE_MARGIN = 5
"""Times as many seeds: there a verdict in either direction is wrong, and the promise is tight."""
HALF = 10_000
COLUMNS = ("scenario", "wrong aborts", "wrong promotions", "right", "undecided", "feedbacks, median")
SHOWN = ("always the same", "labels", "a canary of")
"""Scenarios on the page begin with one of these."""
ONE_BY_ONE = "a query at a time"
"""In the names of scenarios whose losses differ by context, where each query is drawn nevertheless: not promised."""


def main() -> None:
    parser = page_options(__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="five times as many of a trial at the margin itself")
    parser.add_argument("--only", default="", help="scenarios whose name has this in it")
    parser.add_argument("--planned", action="store_true", help="trials with a plan, by their looks alone")
    parser.add_argument("--workers", type=int, default=2)
    options = parsed(parser, {"seeds": 1, "only": "always the same"})
    if options.planned:
        with ProcessPoolExecutor(options.workers) as pool:
            lines = [*planned_tables(options.seeds, options.only, pool)]
        if options.page is not None:
            write_page(
                options.page,
                "Trials with a plan",
                " --planned",
                f"{options.seeds:,} seeds a row, {AT_THE_MARGIN} times as many at +0.02; a fifth where contexts draw.",
                __doc__,
                lines,
            )
        return
    with ProcessPoolExecutor(options.workers) as pool:
        rows = [*trials(options.seeds, options.only, pool)]
        lines = [*table(rows), "", *newcomers(min(options.seeds, 200)), ""]
        lines += [*costs(min(options.seeds, 20), pool), "", *silences(min(options.seeds, 20))]
    if options.page is not None:
        seeds = options.seeds
        made = f"{seeds} seeds a row, {AT_THE_MARGIN * seeds:,} of trials that are worse by the margin itself (+0.02)."
        write_page(options.page, "Decisions about trials", "", made, __doc__, lines)
        write_table(options.page, [COLUMNS, *rows])


def trials(seeds: int, only: str, pool: ProcessPoolExecutor) -> Iterator[tuple[str, ...]]:
    for scenario in SCENARIOS.values():
        if only in scenario.name:
            count = seeds * _times(scenario.name)
            found = row(scenario.name, [*pool.map(partial(ended, scenario.name), range(count), chunksize=BATCH)])
            print(f"| {' | '.join(found)} |", flush=True)
            yield found


def _times(name: str) -> int:
    return AT_THE_MARGIN if name.endswith("+0.02") else 1


def table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """How often verdicts are wrong at most, and the rows of the plain scenarios."""
    promised = _most_wrong([found for found in rows if ONE_BY_ONE not in found[0]])
    yield f"Of a scenario's trials at most {promised}. Here are the"
    yield f"plain ones; [decisions.csv](decisions.csv) has all {len(rows)}: drifting losses, late and partial feedback,"
    yield "rare failures, hosts that fall silent, a log that is wrong."
    if one_by_one := [found for found in rows if ONE_BY_ONE in found[0]]:
        yield f"Where losses differ by context and each query is drawn, at most {_most_wrong(one_by_one)}:"
        yield 'with `assign = "context"` no more than the above.'
    yield ""
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---" * len(COLUMNS) + "|"
    yield from (f"| {' | '.join(found)} |" for found in rows if found[0].startswith(SHOWN))


def _most_wrong(rows: Sequence[tuple[str, ...]]) -> str:
    aborts, promotions = (max(float(found[column].removesuffix(" %")) for found in rows) for column in (1, 2))
    return f"{aborts:.1f} % were aborted wrongly, and {promotions:.1f} % promoted"


def ended(name: str, seed: int) -> End:
    return run(SCENARIOS[name], seed, RULE)


def row(name: str, ends: list[End]) -> tuple[str, ...]:
    wrong = [sum(end.wrong and end.action == action for end in ends) for action in ("abort", "promote")]
    undecided = sum(end.action == "wait" for end in ends)
    right = [end.feedbacks for end in ends if end.action != "wait" and not end.wrong]
    shares = [f"{100 * count / len(ends):.1f} %" for count in (*wrong, len(right), undecided)]
    return (name, *shares, f"{statistics.median(right):,.0f}" if right else "-")


# --- trials with a plan -----------------------------------------------------------------------------------------------
def planned_tables(seeds: int, only: str, pool: ProcessPoolExecutor) -> Iterator[str]:
    yield "## Wrong decisions\n"
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---" * len(COLUMNS) + "|"
    for scenario in SCENARIOS.values():
        if only in scenario.name and (not scenario.contexts or scenario.window_s):
            count = math.ceil(seeds / 5) if scenario.contexts else seeds * _times(scenario.name)
            ends = pool.map(partial(planned_end, scenario.name), range(count), chunksize=BATCH)
            line = f"| {' | '.join(row(scenario.name, [*ends]))} |"
            print(line, flush=True)
            yield line
    yield from (*powers(seeds, pool), *sooner(min(seeds, 200), pool))


def planned_end(name: str, seed: int) -> End:
    scenario = SCENARIOS[name]
    return run(scenario, seed, PLANNED) if scenario.contexts else planned(scenario, seed, PLANNED)


SMALL = TrialRule(confidence=0.9, margin=0.0, plan=TrialPlan(feedbacks=1_000))
"""One side has 5 %, as in the tables that others publish."""


def powers(seeds: int, pool: ProcessPoolExecutor) -> Iterator[str]:
    yield "\n## Power\n"
    yield "Found better, of trials with 500 feedbacks an arm and losses of mean 0.5, one-sided 5 %.\n"
    yield "| difference | one look, at the end | the plan | at any time |"
    yield "|---|---|---|---|"
    for effect in ("0", "0.1"):
        found = np.array([*pool.map(partial(powered, float(effect)), range(10 * seeds), chunksize=10 * BATCH)])
        one, plan, always_valid = found.mean(axis=0)
        line = f"| {effect} standard deviations | {one:.3f} | {plan:.3f} | {always_valid:.3f} |"
        print(line, flush=True)
        yield line


def powered(effect: float, seed: int) -> tuple[bool, bool, bool]:
    """Whether a test of one look, the plan and the rule without one find a version better."""
    scenario = Scenario(
        name="power", worse=always(-effect / 2), hard=always(0.5), share=always(0.5), queries=1_050, after=at_once
    )
    scores, _ = scores_of(scenario, seed)
    known = scores.known[:1_000]
    fixed = -known.sum() > NormalDist().inv_cdf(0.95) * math.sqrt((known**2).sum())
    ends = (of(scenario, seed, SMALL) for of in (planned, anytime))
    return fixed, *(end.action == "promote" and end.feedbacks <= 1_000 for end in ends)


def sooner(seeds: int, pool: ProcessPoolExecutor) -> Iterator[str]:
    yield "\n## Feedbacks until a decision\n"
    yield f"Medians of {seeds} trials that ended rightly, of 60,000 queries, and how many did."
    yield "Pairs: labels about the queries that the canary answers, and about another 10 % that ask it as a shadow."
    yield "Contexts: one in four is hard, and earlier feedback tells which. Plans have the feedbacks that find"
    yield "this difference with power 0.8; confidence is 0.95.\n"
    yield f"| canary, difference | {' | '.join(SOONER)} |"
    yield "|---" * (len(SOONER) + 1) + "|"
    for share in (0.05, 0.1, 0.5):
        for worse in (-0.02, -0.05, -0.10):
            cells = []
            for name in SOONER:
                ends = [*pool.map(partial(sooner_end, name, share, worse), range(seeds), chunksize=BATCH)]
                right = [end.feedbacks for end in ends if end.action == "promote"]
                rest = "" if len(right) == seeds else f" ({100 * len(right) / seeds:.0f} %)"
                cells.append(f"{statistics.median(right):,.0f}{rest}" if right else "-")
            line = f"| {share:.0%}, {worse:+.2f} | {' | '.join(cells)} |"
            print(line, flush=True)
            yield line


SOONER = ("today", "contexts, today", "contexts", "pairs", "a plan", "pairs and a plan")


def sooner_end(name: str, share: float, worse: float, seed: int) -> End:
    pairs, contexts = "pairs" in name, "contexts" in name
    scenario = Scenario(
        name=f"{name} {share} {worse}",
        worse=always(worse),
        hard=always(0.3),
        share=always(share),
        queries=60_000,
        kind="label" if pairs else "reward",
        beside=0.1 if pairs else 0.0,
        hard_contexts=contexts,
        blind="today" in name,
    )
    if "plan" not in name:
        return anytime(scenario, seed, RULE)
    z, variance = 2.82, 0.155 if pairs else 0.21 / (share * (1 - share))
    count = math.ceil(1.05 * variance * (z / (RULE.margin - worse)) ** 2)
    return planned(scenario, seed, TrialRule(plan=TrialPlan(feedbacks=max(100, count))))


def newcomers(seeds: int) -> Iterator[str]:
    yield "## Until a policy finds a new version the best\n"
    yield (
        f"Two versions that lose 0.20 and 0.25 have had {JOINS_AFTER:,} feedbacks when one joins that loses 0.10.\n"
        "Counted are feedbacks from then until it has the largest weight and keeps it. Parameters are the defaults.\n"
    )
    yield "| policy | median | p95 | never |"
    yield "|---|---|---|---|"
    for name in POLICIES:
        found = [feedbacks_to_lead(make_policy(name), seed, POLICY_FEEDBACKS) for seed in range(seeds)]
        times = [math.inf if one is None else one for one in found]
        never = sum(one is None for one in found)
        yield f"| `{name}` | {spread(times, POLICY_FEEDBACKS)} | {100 * never / seeds:.1f} % |"


def spread(times: list[float], longest: int) -> str:
    found = (statistics.median(times), float(np.quantile(times, 0.95, method="higher")))
    return " | ".join(f"> {longest:,}" if math.isinf(one) else f"{one:,.0f}" for one in found)


# --- what the world is like -------------------------------------------------------------------------------------------
def always(value: float) -> Callable[[Floats], Floats]:
    return lambda number: np.full(len(number), value)


def steps(first: float, then: float) -> Callable[[Floats], Floats]:
    return lambda number: np.where(number < HALF, first, then)


def days(number: Floats) -> Floats:
    return 0.35 + 0.25 * np.sin(2 * np.pi * number / 4_000)


def rising(number: Floats) -> Floats:
    return 0.01 + 0.49 * number / len(number)


def at_once(_: Draw, losses: Floats, __: str) -> Floats:
    return np.zeros(len(losses))


def heavy_tailed(draw: Draw, losses: Floats, _: str) -> Floats:
    return 50.0 / draw.random(len(losses))


def failures_first(draw: Draw, losses: Floats, _: str) -> Floats:
    return draw.exponential(1.0, len(losses)) * np.where(losses > 0.5, 100.0, 1_000.0)


def trial_slower(draw: Draw, losses: Floats, whose: str) -> Floats:
    return draw.exponential(1.0, len(losses)) * (1_000.0 if whose == "trial" else 100.0)


def some(share: float) -> Callable[[Draw, Floats, str], Floats]:
    """Feedback about this share of the queries, whatever their losses."""
    return lambda draw, losses, _: np.where(draw.random(len(losses)) < share, 200.0, NEVER)


def half_of_failures(draw: Draw, losses: Floats, whose: str) -> Floats:
    """No feedback about half of the trial's failures."""
    return np.where((draw.random(len(losses)) < 0.5) & (losses > 0.5) & (whose == "trial"), NEVER, 200.0)


def starts(_: Draw, number: Floats) -> Bools:
    return number < 600


def dies(_: Draw, number: Floats) -> Bools:
    """Five seconds without an answer, each five minutes."""
    return (number % 6_000 >= 3_000) & (number % 6_000 < 3_100)


def slow(draw: Draw, number: Floats) -> Bools:
    return draw.random(len(number)) < 0.01


def scenarios() -> Iterator[Scenario]:
    usual = {"hard": always(0.3), "share": always(0.1)}

    def one(name: str, worse: float | Callable[[Floats], Floats], **changes: object) -> Scenario:
        effect = worse if callable(worse) else always(worse)
        return Scenario(name=name, worse=effect, **{**usual, **changes})  # type: ignore[arg-type]

    for worse in (-0.10, -0.05, 0.0, 0.02, 0.05, 0.10):
        yield one(f"always the same, {worse:+.2f}", worse)
    for worse in (-0.10, -0.05, 0.02, 0.05, 0.10):
        yield one(f"labels, {worse:+.2f}", worse, kind="label")
    for share in (0.01, 0.05, 0.5):
        yield one(f"a canary of {share:.0%}, -0.05", -0.05, share=always(share))
        yield one(f"a canary of {share:.0%}, +0.05", 0.05, share=always(share))
    yield one("hard, then easy, the share rises, +0.05", 0.05, hard=steps(0.6, 0.1), share=rising)
    yield one("hard, then easy, the share rises, +0.02", 0.02, hard=steps(0.6, 0.1), share=rising)
    yield one("easy, then hard, the share rises, -0.05", -0.05, hard=steps(0.1, 0.6), share=rising)
    for worse in (-0.05, 0.02, 0.05):
        yield one(f"day and night, half, {worse:+.2f}", worse, hard=days, share=always(0.5))
    yield one("failures are labelled first, +0.10", 0.10, after=failures_first)
    yield one("failures are labelled first, -0.10", -0.10, after=failures_first)
    yield one(
        "the same, hard, then easy, the share rises, +0.05",
        0.05,
        after=failures_first,
        hard=steps(0.6, 0.1),
        share=rising,
    )
    yield one("the trial's feedback is slower, half, -0.05", -0.05, after=trial_slower, share=always(0.5))
    yield one("the trial's feedback is slower, half, +0.05", 0.05, after=trial_slower, share=always(0.5))
    yield one("heavy-tailed delay, half, -0.05", -0.05, after=heavy_tailed, share=always(0.5))
    yield one("feedback about 5 % of queries, half, -0.10", -0.10, after=some(0.05), share=always(0.5))
    yield one("feedback about 5 % of queries, half, +0.10", 0.10, after=some(0.05), share=always(0.5))
    for worse in (-0.10, 0.02, 0.10):
        name = f"feedback about a declared sample of 5 % of queries, half, {worse:+.2f}"
        yield one(name, worse, after=some(0.05), share=always(0.5), sampled=True, horizon=1_000, queries=40_000)
    yield one("feedback about 99 % of queries, half, -0.10", -0.10, after=some(0.99), share=always(0.5))
    yield one(
        "half of the trial's failures without feedback, half, +0.05", 0.05, after=half_of_failures, share=always(0.5)
    )
    yield one("rare failures, 0.002 and 0.004, half", 0.002, hard=always(0.002), share=always(0.5))
    yield one("rare failures, 0.002 and 0.062", 0.06, hard=always(0.002))
    for kind in ("label", "reward"):
        yield one(f"the host starts for 30 s, {kind}s, -0.10", -0.10, kind=kind, silent=starts)
        yield one(f"the host dies for 5 s each 5 min, {kind}s, -0.10", -0.10, kind=kind, silent=dies)
        yield one(f"the host is too slow for 1 %, {kind}s, -0.10", -0.10, kind=kind, silent=slow)
    yield one("beside another canary of 10 %, -0.05", -0.05, others=0.1)
    yield one("beside another canary of 10 %, +0.10", 0.10, others=0.1)
    yield one("a bandit answers, -0.05 than its better model", -0.05, bandit=True)
    yield one("a bandit answers, +0.10 than its better model", 0.10, bandit=True)
    yield from (one(f"{name}, {worse:+.2f}", worse, **changes) for name, worse, changes in contexts())
    yield one("better by 0.05, from the middle on worse by 0.10", steps(-0.05, 0.10))
    yield one("worse by 0.05, from the middle on better by 0.10, labels", steps(0.05, -0.10), kind="label")
    yield one("asked by 15 % where the log says 10 %, +0.05", 0.05, really=1.5)
    yield from without_difference(one)


def without_difference(one: Callable[..., Scenario]) -> Iterator[Scenario]:
    """Where an abort is wrong, or a promotion: as good, or worse by the margin itself."""
    for worse in (0.0, 0.02):
        yield one(f"losses of 0.1, half, {worse:+.2f}", worse, hard=always(0.1), share=always(0.5))
        yield one(f"half, {worse:+.2f}", worse, share=always(0.5))
        yield one(f"hard and easy contexts, half, {worse:+.2f}", worse, hard_contexts=True, share=always(0.5))
        yield one(f"labels, another 10 % as a shadow, {worse:+.2f}", worse, kind="label", beside=0.1)
        yield one(f"the trial's feedback is slower, half, {worse:+.2f}", worse, after=trial_slower, share=always(0.5))
    yield one("hard, then easy, the share rises, +0.00", 0.0, hard=steps(0.6, 0.1), share=rising)
    yield one("day and night, half, +0.00", 0.0, hard=days, share=always(0.5))
    yield one("failures are labelled first, +0.00", 0.0, after=failures_first)


def contexts() -> Iterator[tuple[str, float, dict[str, Any]]]:
    """Contexts that are drawn once, half of them hard and half easy."""
    sessions = {"contexts": 1_000, "session": 20, "spread": 0.3, "hard": always(0.4), "share": always(0.5)}
    users = {**sessions, "session": 0}
    for worse in (0.02, 0.05):
        yield "sessions of 20, a query at a time, half", worse, sessions
    for worse in (-0.10, 0.02, 0.05):
        yield "sessions of 20, half", worse, {**sessions, "window_s": 60.0}
    yield "1,000 users, a query at a time, half", 0.02, users
    for worse in (-0.10, 0.02, 0.10):
        yield "1,000 users, half", worse, {**users, "window_s": 300.0}
    for kind in ("reward", "label"):
        steps_up = {**users, "share": risen, "kind": kind, "window_s": 100.0}
        yield f"users, the share rises by steps, {kind}s", 0.02, steps_up
    uneven = {**users, "share": always(0.1), "kind": "label", "spread": 0.0, "uneven": 0.3}
    yield "users whose versions differ by 0.3, labels, a query at a time", 0.02, uneven
    yield "users whose versions differ by 0.3, labels", 0.02, {**uneven, "window_s": 300.0}


def risen(number: Floats) -> Floats:
    return np.select([number < 7_000, number < 14_000], [0.05, 0.25], 0.5)


# --- a newcomer -------------------------------------------------------------------------------------------------------
OLD, NEW = {"a:1": 0.20, "b:1": 0.25}, {"c:1": 0.10}
"""Mean loss of the two that were there, and of the one that joins."""
MEANS = OLD | NEW
JOINS_AFTER = 2_000


def feedbacks_to_lead(policy: SelectionPolicy, seed: int, within: int) -> int | None:
    """Feedbacks after it joined until the newcomer has the largest weight and keeps it; None: it does not keep it.

    Args:
        policy: With its parameters.
        seed: Of whom is asked, and of who errs.
        within: How many feedbacks are simulated after it joined.
    """
    draw = random.Random(seed)
    state = SelectionState()
    for _ in range(JOINS_AFTER):
        state = learned(policy, state, policy.prepare(state, list(OLD)), draw)
    lost, models = 0, [*OLD, *NEW]
    for number in range(within + 1):
        prepared = policy.prepare(state, models)
        if max(prepared.weights, key=prepared.weights.__getitem__) not in NEW:
            lost = number + 1
        state = learned(policy, state, prepared, draw)
    return lost if lost <= within else None


def learned(
    policy: SelectionPolicy, state: SelectionState, prepared: ActionDistribution, draw: random.Random
) -> SelectionState:
    """One query, and a label for it."""
    decision = prepared.select(draw)
    losses = {model: float(draw.random() < MEANS[model]) for model in decision.models}
    return policy.observe(state, losses, dict(zip(decision.models, decision.propensities, strict=True)))


SCENARIOS = {scenario.name: scenario for scenario in scenarios()}

if __name__ == "__main__":
    main()
