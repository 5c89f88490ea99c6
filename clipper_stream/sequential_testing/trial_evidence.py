"""What the log says about one version on trial: how much more loss it has than what the application's models answered.

    both losses of one query are known        a pair: their difference                      (labels)
    only the loss of who served is known      drawn: the loss of one of two that were drawn (rewards, ensembles)

A query whose server was drawn with the share p of the trial gives a score whose expectation is p (1 - p) times the
difference, whatever the query, its time and the share:

    the trial served      (1 - p) * (its loss - m)
    the models served     -p * (their loss - m)        m: the loss to be expected, by what was known before the draw

Rules of this file:
- Queries count in the order in which they were asked, from the second on in which the trial first answered, or failed
  and said so: before, its host was starting.
- A loss that is not known lies between 0 and 1, in either side's disfavour; that of a pair's difference as far apart as
  the outputs say: where both said the same, it is 0, and nothing is waited for.
- A version that did not answer says nothing about its losses. In a pair the query is left out. Where one of two is
  drawn that would compare easy queries with all, so its loss is unknown. That it did not answer is evidence of its own,
  by the second, since a host that dies fails many queries at once.
- The first feedback says which kind the trial is decided by, labels or rewards, unless most of the first `VOTES` are of
  the other one; what is of the other kind says nothing.
"""

import math
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

from clipper_stream.errors import InvalidLabel
from clipper_stream.sequential_testing.context_means import ContextMean, ContextMeans
from clipper_stream.sequential_testing.planned_test import LOOKS, Look, TrialPlan
from clipper_stream.sequential_testing.score_sums import Capital, Score, ScoreSums

Kind = Literal["label", "reward"]
Side = Literal["trial", "answer"]
RECENT = 100
"""Losses, whose mean a loss is compared with."""
OF_ALL = 10.0
"""Losses of a context from which on its own mean counts more than that of all."""
MOST_CONTEXTS = 10_000
UNKNOWN = 1.0
VOTES, MOST_EARLY = 20, 20_000
"""Feedbacks that say what a trial is decided by; fewer do where so many queries came meanwhile."""
_NOT_HEARD = Score(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialDecision:
    """One query, as a trial sees it.

    Attributes:
        second: In which it was asked, since the epoch.
        share: Probability with which the trial was to be asked, in [0, 1].
        asked: Whether it was.
        canary: Whether it serves when it is asked, instead of the models' answer.
        answer_known: Whether a label gives the loss of the models' answer also where the trial served.
        scored: Whether its losses tell anything; which are left out must not depend on the losses.
        silent: Whether it was asked and gave no output.
        failed: Whether it said so itself, so that its host was there.
        models_silent: Whether the models did not answer.
        apart: How far apart the losses of the trial and of the models' answer can be, in [0, 1].
        context: Of the query; empty: none.
        context_drawn: Number of its context, where contexts are drawn and not each of their queries.
    """

    second: int
    share: float
    asked: bool
    canary: bool
    answer_known: bool = True
    scored: bool = True
    silent: bool = False
    failed: bool = False
    models_silent: bool = False
    apart: float = UNKNOWN
    context: str = ""
    context_drawn: float | None = None


class LossForecast:
    """The loss that the answer to a query will have, by the losses before it, of its context above all.

    It takes nothing that depends on who is drawn to answer, as confidence does: so it can make no score wrong.

    >>> forecast = LossForecast()
    >>> for _ in range(40):
    ...     forecast.learn("hard", 1.0)
    >>> forecast.of("hard") > 0.8, LossForecast().of("hard")
    (True, 0.5)

    Source: Deng et al., "Improving the sensitivity of online controlled experiments by utilizing pre-experiment data",
    WSDM 2013 (a control variate from before the draw).
    """

    def __init__(self) -> None:
        self._sums: OrderedDict[str, tuple[float, float]] = OrderedDict()  # losses and their number; "": of all

    def of(self, context: str) -> float:
        """Return the loss to be expected, in hundredths, so that most scores are alike."""
        total, count = self._sums.get("", (0.0, 0.0))
        mean = (total + 0.5) / (count + 1.0)
        total, count = self._sums.get(context, (0.0, 0.0)) if context else (0.0, 0.0)
        return round((total + OF_ALL * mean) / (count + OF_ALL), 2)

    def learn(self, context: str, loss: float) -> None:
        """Take in the loss of an answer."""
        for one in {context, ""}:
            total, count = self._sums.pop(one, (0.0, 0.0))
            self._sums[one] = total + loss - total / RECENT, count + 1.0 - count / RECENT
        if len(self._sums) > MOST_CONTEXTS:
            self._sums.popitem(last=False)


class Misses(NamedTuple):
    """How far numeric outputs were from a label.

    Attributes:
        trial_at_bound: Share of the trial's numbers whose loss stands at the bound, in [0, 1].
        answer_at_bound: The same of what the application's models answered.
        largest: The largest difference, in the label's unit.
    """

    trial_at_bound: float = 0.0
    answer_at_bound: float = 0.0
    largest: float = 0.0


NO_MISSES = Misses()


@dataclass(slots=True, eq=False)
class OpenDecision:
    """A decision that may get a feedback.

    Attributes:
        decision: The decision.
        recent: The loss that was to be expected before it.
        sums: Where its score is counted.
        heard: Where it counts that it has feedback.
        step: Those of these sums that are of a step.
        score: What stands for it there; None: nothing.
        told: The feedback about it: its kind, the trial's loss and that of the models' answer; None: none yet.
        given_up: Whether none is waited for any more.
    """

    decision: TrialDecision
    recent: float
    sums: tuple[ScoreSums | ContextMean, ...]
    heard: ScoreSums | ContextMean
    step: ScoreSums | None
    score: Score | None = None
    told: tuple[Kind, float | None, float | None] | None = None
    given_up: bool = False


class TrialEvidence:
    """All that is known of one trial.

    Args:
        margin: How much more loss is taken as no loss.
        horizon_s: So long after its query a feedback may come, in seconds.
        sampled: Whether feedback is about a random sample of the queries, so that those without one are left out; only
            what was not answered stays, as an application may have nothing to say about it.
        relative: Above 0: the trial is compared with (1 + relative) times the answers' loss, within no margin.
        plan: When the trial ends; None: when something is known for sure.
        window_s: So long after its first query a context's queries count, in seconds.
        answered_within_s: So long after its query an answer may still come, in seconds: looks wait for it.

    Attributes:
        whole: Scores since the trial began.
        looks: What was known at the looks of the plan.
        feedbacks: Those that told a score.
        heard: Whether a canary was asked, less the probability of it, of the queries that have feedback.
        step: Scores since its present stage and share began.
        step_losses: How many losses of its own are known among these.
        share: Whether a canary was asked, less the probability of it: scores of mean 0, if it was drawn as logged.
        silence: Share of the asked queries of a second that it did not answer, less that of the models: a score each.
        losses: Its own, as far as they are known.
        asked: Queries that asked it.
        asked_s: The seconds of the first and of the last of them.
        passed: Of the queries that did not ask it, the same, and how many would have on average, were its host ready.
        at_bound: Of the known losses of the trial and of the answers: how many, and how many stand at the bound.
        largest: The largest difference between a label and an output.
        began: The second of its first answer; None: it has not answered yet.
        kind: What the trial is decided by; None: no feedback yet.

    >>> evidence = TrialEvidence(0.02)
    >>> one = evidence.decide(TrialDecision(second=7, share=1.0, asked=True, canary=False))
    >>> evidence.learn(one, "label", 1.0, 0.0)
    >>> evidence.whole.capital().mean
    1.0

    Source: Robins, Mark and Newey, "Estimating exposure effects by modelling the expectation of exposure conditional
    on confounders", Biometrics 48, 1992 (the score); Ham et al., "Design-based confidence sequences", 2022,
    arXiv:2210.08639 (queries, losses and delays are taken as they are, what was drawn is all that is random).
    """

    def __init__(
        self,
        margin: float,
        horizon_s: float = math.inf,
        *,
        sampled: bool = False,
        relative: float = 0.0,
        plan: TrialPlan | None = None,
        window_s: float = 0.0,
        answered_within_s: int = 0,
    ) -> None:
        self._horizon_s, self.sampled, self.window_s = horizon_s + window_s, sampled, window_s
        self.plan, self._answered_within_s = plan, answered_within_s
        self._contexts = ContextMeans(window_s)
        self._relative, limit = relative, 0.0 if relative else margin
        self.whole, self.step = ScoreSums(limit), ScoreSums(limit)
        self.share, self.heard, self.silence = ScoreSums(0.0), ScoreSums(0.0), ScoreSums(margin)
        self.losses = ScoreSums(0.0)
        self.looks: list[Look] = []
        self._due: tuple[int, int] | None = None
        self.feedbacks, self._largest = 0, 0.0
        self.asked, self.step_losses = 0, 0
        self.asked_s: tuple[int, int] | None = None
        self.passed: tuple[int, int, float] | None = None
        self.at_bound: dict[Side, tuple[int, float]] = {"trial": (0, 0.0), "answer": (0, 0.0)}
        self.largest = 0.0
        self.began: int | None = None
        self.kind: Kind | None = None
        self._early: deque[OpenDecision] | None = deque()
        self._votes: Counter[Kind] = Counter()
        self._forecast = LossForecast()
        self._second = 0

    @property
    def heard_so_far(self) -> Capital | None:
        """Of a declared sample, `heard` without the last horizon, of which more feedback may come."""
        ends = self.sampled and self._horizon_s < math.inf
        return self.heard.capital(int(self._second - self._horizon_s)) if ends else None

    def next_step(self) -> None:
        """Begin another stage or share, of which nothing is known yet."""
        self.step, self.step_losses = ScoreSums(self.step.margin), 0

    def pass_over(self, second: int, share: float) -> None:
        """Take in a query that did not ask it, and would have with the probability `share`, were its host ready."""
        first, _, expected = self.passed or (second, second, 0.0)
        self.passed = first, second, expected + share

    def decide(self, decision: TrialDecision, *, of_step: bool = True) -> OpenDecision | None:
        """Take in a decision, in the log's order; None: feedback about it says nothing.

        Args:
            decision: The decision.
            of_step: Whether it was made at the present stage and share.
        """
        if decision.canary and decision.context_drawn is None:
            self.share.add(decision.second, _drawn(decision))
        self.asked += decision.asked
        if decision.asked:
            self.asked_s = (decision.second if self.asked_s is None else self.asked_s[0], decision.second)
        if self.began is None and decision.asked and (decision.failed or not decision.silent):
            self.began = decision.second
        if self.began is None or decision.second < self.began:
            return None
        self._count_silence(decision)
        opened = self._opened(decision, of_step=of_step) if decision.scored else None
        if opened is None:
            return None
        self._look()
        if self._early is not None:
            self._early.append(opened)
        if self.kind is not None:
            self._open(opened)
        return opened

    def _opened(self, decision: TrialDecision, *, of_step: bool) -> OpenDecision | None:
        number, recent = decision.context_drawn, self._forecast.of(decision.context)
        sums = (self.whole, self.step) if of_step else (self.whole,)
        opened = OpenDecision(decision, recent, sums, self.heard, self.step if of_step else None)
        if number is not None:
            means, is_first = self._contexts.join(number, decision.second, recent, sums, (self.heard,))
            if decision.canary and is_first:
                self.share.add(decision.second, _drawn(decision))
            if not means:
                return None
            mean, opened.heard = means
            opened.recent, opened.sums = mean.recent, (mean,)
        if self.sampled and decision.canary:
            opened.heard.change(decision.second, None, _NOT_HEARD)
        return opened

    def learn(
        self, opened: OpenDecision, kind: Kind, trial: float | None, answer: float | None, misses: Misses = NO_MISSES
    ) -> None:
        """Take in the feedback about a decision.

        Args:
            opened: The decision.
            kind: What the feedback is.
            trial: Loss of the trial, in [0, 1]; None: the feedback does not tell.
            answer: Loss of what the application's models answered; None: it does not tell.
            misses: How far both were from a label.

        Raises:
            InvalidLabel: a loss is outside of [0, 1].
        """
        if self.kind is None:
            self.kind = kind
            for one in self._early or ():
                self._open(one)
        sides: tuple[tuple[Side, float | None, float], ...] = (
            ("trial", trial, misses.trial_at_bound),
            ("answer", answer, misses.answer_at_bound),
        )
        for side, loss, at_bound in sides:
            if loss is not None:
                if not 0.0 <= loss <= 1.0:
                    raise InvalidLabel(f"loss {loss!r}: give a number from 0 to 1")
                self.at_bound[side] = (self.at_bound[side][0] + 1, self.at_bound[side][1] + at_bound)
        self.largest = max(self.largest, misses.largest)
        if trial is not None:
            self.step_losses += self.step is opened.step
            self.losses.add(opened.decision.second, Score(1.0, trial, trial))
        opened.told = kind, trial, answer
        self._count(opened)
        if self._early is not None:
            self._vote(kind, self._early)
        self._look()

    def _count(self, opened: OpenDecision) -> None:
        """Count what feedback told, if it is of the kind that the trial is decided by."""
        if opened.told is None or opened.told[0] != self.kind:
            return
        _, trial, answer = opened.told
        one = opened.decision
        if self.sampled and one.canary:
            opened.heard.change(one.second, _NOT_HEARD, _drawn(one))
        if opened.score is not None:
            self.feedbacks += 1
            _put(opened, self._score(opened, trial, answer, waiting=False))
        served = trial if one.asked and one.canary else answer
        if served is not None:
            self._forecast.learn(one.context, served)

    def _look(self) -> None:
        """Take a look at all queries up to the second in which a further part of the plan was over, once answered."""
        if self.plan is None or self.began is None:
            return
        parts = int(LOOKS * self.plan.fraction(self.feedbacks, self._second - self.began) + 1e-9)
        if self._due is None and parts > (round(LOOKS * self.looks[-1].fraction) if self.looks else 0):
            self._due = parts, self._second
        if self._due is not None and self._second >= self._due[1] + self._answered_within_s:
            (parts, second), self._due = self._due, None
            self.looks.append(Look(parts / LOOKS, self.whole.capital(second + 1), self._largest))

    def _vote(self, kind: Kind, early: deque[OpenDecision]) -> None:
        """Count a feedback's kind; once enough are counted, put all scores in the place of those of the other kind."""
        self._votes[kind] += 1
        if self._votes.total() < VOTES and len(early) < MOST_EARLY:
            return
        self._early = None
        ((most, _),) = self._votes.most_common(1)
        if most == self.kind:
            return
        self.kind, self.feedbacks, self._forecast = most, 0, LossForecast()
        for one in early:
            _put(one, None)
            if self.sampled and one.decision.canary and one.told is not None and one.told[0] != most:
                one.heard.change(one.decision.second, _drawn(one.decision), _NOT_HEARD)
            self._open(one)
            self._count(one)
            if one.given_up:
                self.give_up(one)

    def give_up(self, opened: OpenDecision) -> None:
        """Wait no more for the feedback about a decision."""
        one, opened.given_up = opened.decision, True
        if self.kind is None and self._early is not None:
            self._early.remove(opened)
        elif opened.score is not None and self.sampled and not (one.silent or one.models_silent):
            _put(opened, None)
        elif opened.score is not None:
            _put(opened, opened.score._replace(waiting=False))

    def _open(self, opened: OpenDecision) -> None:
        _put(opened, self._score(opened, None, None, waiting=True))
        if opened.score is not None:
            p, m, of_pair = opened.decision.share, opened.recent, not opened.decision.canary or self.kind == "label"
            self._largest = max(self._largest, 1.0 if of_pair else max(p, 1.0 - p) * max(m, 1.0 - m))

    def _score(self, opened: OpenDecision, trial: float | None, answer: float | None, *, waiting: bool) -> Score | None:
        one, p, part = opened.decision, opened.decision.share, 1.0 / (1.0 + self._relative)
        m = part * opened.recent
        trial_low, trial_high = (0.0, part) if trial is None or one.silent else (part * trial, part * trial)
        answer_low, answer_high = (0.0, 1.0) if answer is None or one.models_silent else (answer, answer)
        if self.kind == "label" and one.answer_known:
            if not one.asked or one.silent or one.models_silent:
                return None
            apart = UNKNOWN if self._relative or trial is not None else one.apart
            low, high = max(-apart, trial_low - answer_high), min(apart, trial_high - answer_low)
            both = trial is not None and answer is not None
            return Score(part, low, high, waiting and low < high, trial if both else None, answer if both else None)
        if not one.canary:
            return None
        if one.asked:
            low, high, silent, answer = (1.0 - p) * (trial_low - m), (1.0 - p) * (trial_high - m), one.silent, None
        else:
            low, high, silent, trial = -p * (answer_high - m), -p * (answer_low - m), one.models_silent, None
        known = (None, None) if silent else (trial, answer)
        waits = waiting and low < high and not silent
        return Score(part * p * (1.0 - p), low, high, waits, *known, 1.0 - p if one.asked else p)

    def _count_silence(self, one: TrialDecision) -> None:
        if one.second > self._second:
            self._second = one.second
            self._contexts.close(one.second)
            for sums in (self.whole, self.step, self.share, self.heard, self.silence, self.losses):
                sums.settle(one.second - self._horizon_s)
        if one.asked:
            self.silence.add_query(one.second, float(one.silent) - one.models_silent)


def _put(opened: OpenDecision, now: Score | None) -> None:
    """Put a score in the place of the one that stands for a decision; None: nothing."""
    for sums in opened.sums if now != opened.score else ():
        sums.change(opened.decision.second, opened.score, now)
    opened.score = now


def _drawn(one: TrialDecision) -> Score:
    drawn = float(one.asked) - one.share
    return Score(1.0, drawn, drawn)
