"""How often does a guardrail abort a trial that is within its bounds, and how soon one that is not?

    python benchmarks/guardrails.py                                            # some minutes; simulated and seeded
    python benchmarks/guardrails.py --page benchmarks/results/guardrails.md    # and the page of the figures
    python benchmarks/guardrails.py --quick                                    # few seeds; its numbers say nothing

A canary of a quarter of 20 queries a second is looked at each second for an hour, at confidence 0.95: of trials whose
means are within their bounds at most 2.5 % may ever be aborted, by whichever guardrail, and as many may ever be called
within a bound that a mean is not below. At the bound both are wrong. A second step begins after half an hour. In worlds
with stalls the host answers nothing for a second now and then, whatever came in it. `all three` are p99, errors and
revenue, beside the loss, which is looked at as well. Minutes are medians.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from rig.session import page_options, parsed, write_page

from clipper_stream.sequential_testing.rollout_rule import TrialRule
from clipper_stream.sequential_testing.score_sums import BETS

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Draw: TypeAlias = np.random.Generator

SECONDS, ASKED, QUERIES, SHARE, RECENT = 3_600, 5, 20, 0.25, 100
SELL, STEP, LOSS = 1 / 20, 1_800, "loss"
BOTH = 0.7
"""Share of the failures of the models that are the trial's as well."""
COLUMNS = ("guardrail", "world", "seeds", "wrong aborts", "wrongly within", "aborted", "minutes", "within", "minutes")


class Capitals:
    """The capitals of both sides in many trials at once, as `ScoreSums` has those of one."""

    def __init__(self, margin: float, seeds: int) -> None:
        self.margin, self.stakes = margin, BETS / (1.0 + margin)
        self.below, self.above = np.zeros((seeds, len(BETS))), np.zeros((seeds, len(BETS)))

    def add(self, weight: Floats, score: Floats) -> None:
        spoken = (score - weight * self.margin)[:, None] * self.stakes
        self.above += np.log1p(spoken)
        self.below += np.log1p(-spoken)

    def reached(self, side: Floats, alpha: float) -> Bools:
        return np.logaddexp.reduce(side, axis=1) - math.log(len(BETS)) >= -math.log(alpha)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One guardrail in one world: `means` gives the scores of a second, `mean` what is expected between two.

    A metric in feedback has `worths` in its place: the mean values of the trial and of the models, in its range.
    """

    margin: float
    mean: Callable[[int, int], float]
    means: Callable[[Draw, int, int], Floats] = lambda *_: np.zeros(0)
    worths: tuple[float, float] | None = None


def shares(rate: Callable[[int], float] | float, margin: float, stalls: float = 0.0) -> Measure:
    """A share of the trial's queries: so many, and all of them in a share of the seconds."""
    rates = np.array([rate(second) if callable(rate) else rate for second in range(SECONDS)])
    sums = np.append(0.0, np.cumsum(rates))

    def means(draw: Draw, second: int, seeds: int) -> Floats:
        found = draw.binomial(ASKED, rates[second], seeds) / ASKED
        return np.where(draw.random(seeds) < stalls, 1.0, found)

    def mean(first: int, last: int) -> float:
        return stalls + (1.0 - stalls) * float(sums[last + 1] - sums[first]) / (last + 1 - first)

    return Measure(margin=margin, mean=mean, means=means)


def pairs(trial: float, models: float, margin: float, outages: float = 0.0) -> Measure:
    """Failures of the trial less those of the models for the same queries; in outages both fail all."""
    both = BOTH * min(trial, models)
    chances = [trial - both, models - both, 1.0 - trial - models + both]

    def means(draw: Draw, _: int, seeds: int) -> Floats:
        found = draw.multinomial(ASKED, [*chances, both], seeds)
        is_up = draw.random(seeds) >= outages
        return is_up * (found[:, 0] - found[:, 1]) / ASKED

    return Measure(margin=margin, mean=lambda *_: (1.0 - outages) * (trial - models), means=means)


def losses(trial: float, models: float, margin: float) -> Measure:
    """Losses of 0 and 1 of both to the same queries, each of which is a score."""

    def means(draw: Draw, _: int, seeds: int) -> Floats:
        luck, other = draw.random((2, ASKED, seeds))
        shared = draw.random((ASKED, seeds)) < BOTH
        return (np.where(shared, luck, other) < trial).astype(float) - (luck < models)

    return Measure(margin=margin, mean=lambda *_: trial - models, means=means)


def costs(trial: float, models: float, margin: float, uncached: float = 0.4) -> Measure:
    unit = trial + models

    def means(draw: Draw, _: int, seeds: int) -> Floats:
        own, other = (draw.binomial(ASKED, uncached, seeds) / ASKED for _ in range(2))
        return (trial * own - models * other) / unit

    return Measure(margin=margin / unit, mean=lambda *_: uncached * (trial - models) / unit, means=means)


def revenue(trial: float, models: float, margin: float, most: float = 50.0) -> Measure:
    """What queries are worth on average, of which one in twenty sells anything."""
    return Measure(margin=margin / most, mean=lambda *_: (models - trial) / most, worths=(trial / most, models / most))


class Trials:
    """One guardrail in many trials."""

    def __init__(self, of: Measure, seeds: int) -> None:
        self.of, self._seeds = of, seeds
        self.whole, self.step, self._began = Capitals(of.margin, seeds), Capitals(of.margin, seeds), 0
        self._recent, self._count = np.zeros(seeds), 0.0

    def look(self, draw: Draw, second: int) -> None:
        if second == STEP:
            self.step, self._began = Capitals(self.of.margin, self._seeds), second
        if self.of.worths is None:
            for score in np.atleast_2d(self.of.means(draw, second, self._seeds)):
                self._add(np.ones(self._seeds), score)
            return
        for _ in range(QUERIES):
            m = np.round((self._recent + 0.5) / (self._count + 1.0), 2)
            asked = draw.random(self._seeds) < SHARE
            worth = np.where(asked, *self.of.worths) * 2.0 / SELL * draw.random(self._seeds)
            value = 1.0 - (draw.random(self._seeds) < SELL) * worth
            score = np.where(asked, 1.0 - SHARE, -SHARE) * (value - m)
            self._add(np.full(self._seeds, SHARE * (1.0 - SHARE)), score)
            self._recent += value - self._recent / RECENT
            self._count += 1.0 - self._count / RECENT

    def _add(self, weight: Floats, score: Floats) -> None:
        for each in (self.whole, self.step):
            each.add(weight, score)

    def outside(self, rule: TrialRule, second: int) -> tuple[Bools, Bools]:
        """Which trials are outside by this guardrail, and which of them wrongly."""
        found, right = np.zeros(self._seeds, bool), np.zeros(self._seeds, bool)
        tests = (self.whole, rule.alpha_of_abort / 2, 0), (self.step, 2 * rule.alpha_of_step, self._began)
        for each, alpha, first in tests:
            reached = each.reached(each.above, alpha)
            found |= reached
            if reached.any() and self.of.mean(first, second) > self.of.margin + 1e-12:
                right |= reached
        return found, found & ~right


@dataclass(frozen=True, kw_only=True)
class Ends:
    """When each trial was aborted and when all of its guardrails were within for the first time; infinite: never."""

    aborted: Floats
    within: Floats
    wrong_aborts: int
    wrong_within: int


def ends_of(measures: Mapping[str, Measure], seeds: int, seconds: int, seed: int = 1) -> Ends:
    draw, rule = np.random.default_rng(seed), TrialRule(guardrails=len(measures) - (LOSS in measures))
    trials = [Trials(one, seeds) for one in measures.values()]
    aborted, within = np.full(seeds, np.inf), np.full(seeds, np.inf)
    wrong_aborts, wrong_within = np.zeros(seeds, bool), np.zeros(seeds, bool)
    for second in range(seconds):
        outside, inside = np.zeros(seeds, bool), np.ones(seeds, bool)
        for one in trials:
            one.look(draw, second)
            harmed, wrongly = one.outside(rule, second)
            passed = one.whole.reached(one.whole.below, rule.alpha)
            wrong_aborts |= wrongly & np.isinf(aborted)
            wrong_within |= passed & (one.of.mean(0, second) >= one.of.margin - 1e-12)
            outside |= harmed
            inside &= passed
        aborted[outside & np.isinf(aborted)] = second
        within[inside & np.isinf(within)] = second
    return Ends(
        aborted=aborted, within=within, wrong_aborts=int(wrong_aborts.sum()), wrong_within=int(wrong_within.sum())
    )


def wave(second: int) -> float:
    """Less than 1 % at first and then more, an hour long."""
    return 0.01 - 0.009 * math.sin(2.0 * math.pi * second / 3_600)


@dataclass(frozen=True, kw_only=True)
class World:
    """Which guardrails there are, and what they measure; `at_bound`: a verdict in either direction is wrong."""

    guardrail: str
    name: str
    measures: Mapping[str, Measure] = field(default_factory=dict)
    at_bound: bool = False


def world(guardrail: str, name: str, *measures: Measure, at_bound: bool = False, loss: Measure | None = None) -> World:
    numbered = {f"{guardrail} {at}": one for at, one in enumerate(measures)} | ({} if loss is None else {LOSS: loss})
    return World(guardrail=guardrail, name=name, measures=numbered, at_bound=at_bound)


P99 = 0.01
AT_BOUND = shares(P99, P99), pairs(0.015, 0.01, 0.005), revenue(0.75, 1.0, 0.25)
FINE = shares(0.002, P99), pairs(0.01, 0.01, 0.005), revenue(1.0, 1.0, 0.25)
WORLDS = (
    world("p99", "0.2 % are slow", FINE[0]),
    world("p99", "1 % are slow", AT_BOUND[0], at_bound=True),
    world("p99", "1 %, most of them in stalls", shares(0.002, P99, stalls=0.008), at_bound=True),
    world("p99", "1 % on average, in waves", shares(wave, P99)),
    world("p99", "2 % are slow", shares(0.02, P99)),
    world("p99", "3 % are slow", shares(0.03, P99)),
    world("p99", "0.2 %, from the second step on 3 %", shares(lambda second: 0.002 if second < STEP else 0.03, P99)),
    world("p99", "0.2 %, and stalls of 2 % of the seconds", shares(0.002, P99, stalls=0.02)),
    world("errors", "1 % as the models'", FINE[1]),
    world("errors", "1.5 % beside 1 %", AT_BOUND[1], at_bound=True),
    world("errors", "1.5 % beside 1 %, outages of both", pairs(0.0151, 0.01, 0.005, outages=0.02), at_bound=True),
    world("errors", "3 % beside 1 %", pairs(0.03, 0.01, 0.005)),
    world("defaults", "0.5 % as the models'", pairs(0.005, 0.005, 0.01)),
    world("defaults", "1.5 % beside 0.5 %", pairs(0.015, 0.005, 0.01), at_bound=True),
    world("defaults", "4 % beside 0.5 %", pairs(0.04, 0.005, 0.01)),
    world("cost", "0.02 as the models'", costs(0.02, 0.02, 0.005)),
    world("cost", "0.0325 beside 0.02, 60 % from the cache", costs(0.0325, 0.02, 0.005), at_bound=True),
    world("cost", "0.05 beside 0.02", costs(0.05, 0.02, 0.005)),
    world("revenue", "1.00 as the models'", FINE[2]),
    world("revenue", "0.75 beside 1.00", AT_BOUND[2], at_bound=True),
    world("revenue", "0.00 beside 1.00", revenue(0.0, 1.0, 0.25)),
    world("all three", "none is harmed", *FINE, loss=losses(0.3, 0.3, 0.02)),
    world("all three", "all at their bounds, the loss too", *AT_BOUND, at_bound=True, loss=losses(0.32, 0.3, 0.02)),
    world("all three", "p99 at 3 %", shares(0.03, P99), *FINE[1:], loss=losses(0.3, 0.3, 0.02)),
)


def rows(seeds: int, seconds: int, only: str) -> Iterator[tuple[str, ...]]:
    for one in WORLDS:
        if only in f"{one.guardrail} {one.name}":
            count = 5 * seeds if one.at_bound else seeds
            ends = ends_of(one.measures, count, seconds)
            shown = [f"{100 * wrong / count:.1f} %" for wrong in (ends.wrong_aborts, ends.wrong_within)]
            for times in (ends.aborted, ends.within):
                found = times[np.isfinite(times)]
                shown += [f"{len(found) / count:.0%}", f"{np.median(found) / 60:.0f}" if len(found) else "-"]
            yield one.guardrail, one.name, f"{count:,}", *shown


def main() -> None:
    parser = page_options(__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="five times as many where a mean is at its bound")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of a trial")
    parser.add_argument("--only", default="", help="worlds whose guardrail and name have this in them")
    options = parsed(parser, {"seeds": 2, "seconds": 60})
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    print("\n".join(lines))
    for found in rows(options.seeds, options.seconds, options.only):
        lines.append(f"| {' | '.join(found)} |")
        print(lines[-1], flush=True)
    if options.page is not None:
        made = f"{options.seeds} seeds a row, {5 * options.seeds:,} where a mean is at its bound."
        write_page(options.page, "Guardrails of trials", "", made, __doc__, lines)


if __name__ == "__main__":
    main()
