"""How many feedbacks until a version on trial is promoted or aborted, and until a policy finds a new one the best?

    python benchmarks/rollouts.py                                        # some minutes; simulated and seeded
    python benchmarks/rollouts.py --page benchmarks/results/rollouts.md      # and the page of the figures
    python benchmarks/rollouts.py --quick                                # few seeds; its numbers say nothing

The rule has its default parameters. The application's answers lose 0.20; a trial loses as much more or less as the row
says, and both err on the same queries in 70 % of the lesser one's mistakes.

- `labels`: a shadow of all queries first, then a canary's shares. Feedback about a query that both answered is a pair.
- `rewards`: a canary from the first share on. A feedback says how good the one answer was that was given.

Counted are feedbacks of the application, about whichever query, from the trial's begin to its end. Wrong is the
promotion of a version that is worse by more than the margin, and the abort of one that is not.
"""

import math
import random
import statistics
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from rig.confidence_sequences import Floats, bets, capitals, goal
from rig.session import page_options, parsed, write_page

from clipper_stream.selection.distribution import ActionDistribution
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import SelectionState
from clipper_stream.sequential_testing.evidence import DifferenceEvidence
from clipper_stream.sequential_testing.hedged_capital import LARGEST_BET
from clipper_stream.sequential_testing.rollout_rule import TrialRule

RULE = TrialRule()
ANSWERS, SHARED = 0.20, 0.7
WORSE_BY = (-0.10, -0.05, -0.02, 0.0, 0.02, 0.05, 0.10, 0.50)
LONGEST = {"labels": 60_000, "rewards": 30_000}
NEAR, FINEST = np.arange(-100, 41) / 200, 20
"""Distances from the mean at which intervals of rewards may end, and feedbacks about the trial between two looks."""
POLICIES = ("exp3", "exp4", "epsilon_greedy")
POLICY_FEEDBACKS = 3_000


class End(NamedTuple):
    """How a trial ended."""

    action: str
    feedbacks: int


def main() -> None:
    parser = page_options(__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    options = parsed(parser, {"seeds": 1})
    seeds = options.seeds
    lines = [*trials(seeds), "", *newcomers(seeds)]
    print("\n".join(lines))
    if options.page is not None:
        made = f"{seeds} seeds a row, simulated by `benchmarks/rollouts.py`."
        write_page(options.page, "How long a trial takes", "", made, __doc__, lines)


def trials(seeds: int) -> Iterator[str]:
    yield f"## Until a trial ends (margin {RULE.margin:g}, confidence {RULE.confidence:g})\n"
    yield "| feedback | trial's loss, difference | promoted | aborted | undecided | wrong | median | p95 |"
    yield "|---|---|---|---|---|---|---|---|"
    for kind, run in (("labels", by_labels), ("rewards", by_rewards)):
        for worse in WORSE_BY:
            ends = [run(worse, seed) for seed in range(seeds)]
            counts = {action: sum(end.action == action for end in ends) for action in ("promote", "abort", "wait")}
            wrong = counts["promote"] if worse > RULE.margin else counts["abort"]
            times = [end.feedbacks if end.action != "wait" else math.inf for end in ends]
            shares = " | ".join(f"{100 * counts[action] / seeds:.1f} %" for action in counts)
            yield f"| {kind} | {worse:+.2f} | {shares} | {100 * wrong / seeds:.1f} % | {spread(times, LONGEST[kind])} |"


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


# --- labels: pairs ----------------------------------------------------------------------------------------------------
def by_labels(worse: float, seed: int) -> End:
    rng = np.random.default_rng([seed, 1])
    pairs = differences(rng, worse, LONGEST["labels"])
    alpha = DifferenceEvidence.of(RULE.alpha_of_trial).pairs.alpha
    above, below = (first(capital, goal(alpha)) for capital in at_margin(pairs, alpha))
    share, begin, spent = 1.0, 0, 0
    for following in (*RULE.steps, None):
        stop = begin + step_length(pairs[begin:], max(0, below - begin))
        aborted = min(above, begin + step_abort(pairs[begin:]))
        seen = min(stop, aborted, len(pairs))
        spent += int(rng.negative_binomial(seen - begin, share)) + seen - begin if seen > begin else 0
        if aborted <= stop and aborted < len(pairs):
            return End("abort", spent)
        if stop >= len(pairs) or spent > LONGEST["labels"]:
            return End("wait", spent)
        begin, share = stop, following or share
    return End("promote", spent)


def step_length(pairs: Floats, certain: int) -> int:
    """Pairs at a step until it may end: certain as a whole, `least` of them, and their mean not clearly too high."""
    least, n = max(RULE.least, certain), np.arange(1, len(pairs) + 1)
    means = np.cumsum(pairs) / n
    variances = 4 * (0.25 + np.cumsum((pairs - means) ** 2 / 4)) / (n + 1)
    fine = means - np.sqrt(variances / (n + 1)) <= RULE.margin
    fine[: least - 1] = False
    return first(fine, 1.0)


def step_abort(pairs: Floats) -> int:
    alpha = DifferenceEvidence.of(RULE.alpha_of_step).pairs.alpha
    return first(at_margin(pairs, alpha)[0], goal(alpha)) if len(pairs) else 0


def at_margin(pairs: Floats, alpha: float) -> tuple[Floats, Floats]:
    above, below = capitals((pairs[None, :] + 1) / 2, (RULE.margin + 1) / 2, alpha)
    return above[0], below[0]


def first(values: Floats, bound: float) -> int:
    """How many until one has reached the bound; more than there are when none has."""
    reached = np.flatnonzero(values >= bound)
    return int(reached[0]) + 1 if len(reached) else 10**9


def differences(rng: np.random.Generator, worse: float, count: int) -> Floats:
    trial = ANSWERS + worse
    both = SHARED * min(trial, ANSWERS)
    only_trial, only_answer = trial - both, ANSWERS - both
    return rng.choice([1.0, -1.0, 0.0], p=[only_trial, only_answer, 1 - only_trial - only_answer], size=count)


# --- rewards: two samples ---------------------------------------------------------------------------------------------
def by_rewards(worse: float, seed: int) -> End:
    """The intervals of the steps, which could only abort sooner, are left out."""
    rng = np.random.default_rng([seed, 2])
    evidence = DifferenceEvidence.of(RULE.alpha_of_trial)
    trial_ends, answer_ends = (
        Ends((rng.random(LONGEST["rewards"]) < mean).astype(float), alpha, mean)
        for mean, alpha in ((ANSWERS + worse, evidence.trial.alpha), (ANSWERS, evidence.answers.alpha))
    )
    step, trial, answers, of_step = 0, 0, 0, 0
    while trial + answers < LONGEST["rewards"]:
        share = RULE.steps[step]
        others = int(rng.negative_binomial(FINEST, share))
        trial, answers, of_step = trial + FINEST, answers + others, of_step + FINEST
        low, high = trial_ends.at(trial)
        least, most = answer_ends.at(answers)
        if low - most > RULE.margin:
            return End("abort", trial + answers)
        if high - least < RULE.margin and of_step >= RULE.least:
            if step + 1 == len(RULE.steps):
                return End("promote", trial + answers)
            step, of_step = step + 1, 0
    return End("wait", trial + answers)


class Ends:
    """Ends of the interval of a sequence, found as they are asked for."""

    def __init__(self, values: Floats, alpha: float, mean: float) -> None:
        self._grid = np.unique(np.clip(mean + NEAR, 0.001, 0.999))
        self._values, self._goal, self._seen = values, goal(alpha), 0
        self._bets = bets(values[None, :], alpha)[0][0]
        self._capital = np.zeros((2, len(self._grid)))
        self._lower, self._upper = 0.0, 1.0

    def at(self, count: int) -> tuple[float, float]:
        """After so many observations, not fewer than at the last call."""
        values, bet = (some[self._seen : count, None] for some in (self._values, self._bets))
        for start in range(0, len(values), 100):  # a product of a hundred factors does not underflow
            distance, stake = values[start : start + 100] - self._grid, bet[start : start + 100]
            above = 1 + np.minimum(stake, LARGEST_BET / self._grid) * distance
            below = 1 - np.minimum(stake, LARGEST_BET / (1 - self._grid)) * distance
            self._capital[0] += np.log(np.multiply.reduce(above))
            self._capital[1] += np.log(np.multiply.reduce(below))
        self._seen = count
        out = self._capital >= self._goal
        self._lower = max(self._lower, self._grid[out[0]].max(initial=0.0))
        self._upper = min(self._upper, self._grid[out[1]].min(initial=1.0))
        return self._lower, self._upper


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


if __name__ == "__main__":
    main()
