"""What happens in a demo: two applications, the load on them, the failure, what is recorded, and what it shows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clipper_agents.demo import LEAST_QUERIES, LOAD_S, MOST_DEFAULTS
from clipper_agents.replay.verdicts import Verification
from clipper_loadgen import Dataset, LoadPlan, LoadReport
from clipper_loadgen.draws import FloatArray
from clipper_stream.errors import ClipperError
from clipper_topics import codec
from clipper_topics.prediction import Prediction

POLICIES: dict[str, dict[str, Any]] = {
    # Both must forget, or the repaired model would have to be good for as long as it was broken. A half-life of 100
    # feedbacks in each of 4 partitions is a memory of about 580. exp3 scores one model a query, so it needs that much
    # to tell 3 % errors from 4 %; it comes back some 2,000 queries after the repair.
    "exp3": {"eta": 0.2, "exploration": 0.05, "half_life": 100.0},
    # exp4 scores all five, so a memory of 170 will do, and it comes back after some 900. Shorter still, and bad luck
    # would pass for a bad model.
    "exp4": {"eta": 0.3, "half_life": 30.0},
}
"""Parameters by policy; each has an application of its own, and queries go to the applications in turn."""
ENSEMBLE = "exp4"
"""Asks all models for every query: its log is what each of them alone would have answered."""
FAILED = "failed"
PHASES = {"healthy": 0.0, FAILED: 0.25, "restored": 0.5}
"""Phases of the best model, with the share of the queries that come before each."""
MAX_OPEN = 32
"""Queries without an answer: twice what an idle machine has at the default rate. On a busy one the demo then sends more
slowly, so that it shows how policies choose and not how deadlines are missed: 32 are in time down to 32 a second."""
CALM_RATIO = 0.6
"""The demo sends so much of what the machine answers at most: more of it would wait."""
STORY_RATIO = 0.5
"""The policies have left the broken model where they err less than half as often."""
WINDOW_SHARE, LEAST_WINDOW = 0.04, 50
"""An error in the picture is about this share of an application's answers: 400 of 10,000."""
TICK_S = 0.02
"""Queries that are due within 20 ms leave together, as when a page asks about all its pictures: fewer wake-ups."""


def application_of(policy: str) -> str:
    """Name of the application that a policy has."""
    return f"digits-{policy}"


def demo_load(pictures: Dataset, rate_per_s: float, seed: int) -> LoadPlan:
    """A query about each picture, to the applications in turn, and its true digit a while after the answer."""
    return LoadPlan(
        tuple(map(application_of, POLICIES)),
        mode="bounded",
        outstanding=MAX_OPEN,
        rate_per_s=rate_per_s,
        duration_s=len(pictures.rows) / rate_per_s,
        arrivals="constant",
        linger_s=TICK_S,
        dataset=pictures,
        repeat_ratio=0.1,
        feedback_delay_s=0.075,
        seed=seed,
    )


class Pace(NamedTuple):
    """What the machine answers at most, in queries a second, and what is therefore sent."""

    measured_per_s: float
    rate_per_s: float
    queries: int


def pace_of(measured_per_s: float, most_per_s: float, queries: int | None) -> Pace:
    """The pace of a demo on a machine that answers so much: `queries` of them, else what it answers in `LOAD_S`.

    >>> pace_of(50.0, 250.0, None)
    Pace(measured_per_s=50.0, rate_per_s=30.0, queries=2400)

    Raises:
        ClipperError: it answers fewer than `LEAST_QUERIES` in that time.
    """
    rate_per_s, needed = min(most_per_s, CALM_RATIO * measured_per_s), LEAST_QUERIES / LOAD_S / CALM_RATIO
    if measured_per_s < needed:
        raise ClipperError(
            f"this machine answers {measured_per_s:.1f} queries a second in time, and the demo needs {needed:.1f}: "
            "end what else runs on it"
        )
    return Pace(measured_per_s, rate_per_s, queries or max(LEAST_QUERIES, round(rate_per_s * LOAD_S)))


def phase_edges(queries: int) -> list[int]:
    """The first query of each phase, and the number of queries.

    >>> phase_edges(400)
    [0, 100, 200, 400]
    """
    return [*(round(queries * share) for share in PHASES.values()), queries]


def phase_of(query: int, queries: int) -> str:
    """The phase that a query belongs to."""
    return [*PHASES][sum(query >= edge for edge in phase_edges(queries)[1:-1])]


class DemoRecorder:
    """Observes the load: records which answers were wrong, and breaks the best model for a while.

    Args:
        queries: How many there will be.
        models: References of the models, `name:version`.
        flag: Path of a file that exists while the best model is to fail.

    Attributes:
        labels: The true digit of each query.
        errors: By policy and then by model, a number a query: 1 for a wrong answer, 0 for a right one, NaN where the
            query does not count. A policy counts on all queries to its application, where no answer is wrong, as a
            default is; a model where the ensemble asked it and it answered in time.
    """

    answers = codec.predictions

    def __init__(self, queries: int, models: Iterable[str], flag: Path) -> None:
        self._queries, self._flag = queries, flag
        self.labels: Sequence[int] = ()
        self.errors = {name: np.full(queries, np.nan) for name in (*POLICIES, *models)}
        for number, policy in enumerate(POLICIES):
            self.errors[policy][number :: len(POLICIES)] = 1.0

    def releasing(self, count: int) -> None:
        """Break or repair the model where a phase begins, before its first query is sent."""
        if phase_of(count - 1, self._queries) == FAILED:
            self._flag.touch()
        else:
            self._flag.unlink(missing_ok=True)

    def answered(self, query: int, answer: Prediction) -> None:
        """Record a first answer, and of the ensemble's the output of each model."""
        policy, label = [*POLICIES][query % len(POLICIES)], self.labels[query]
        self.errors[policy][query] = answer.output != label
        if policy == ENSEMBLE:
            for one in answer.models:
                self.errors[f"{one.model}:{one.version}"][query] = one.output != label


class DemoResult(NamedTuple):
    """What a run showed.

    Attributes:
        broken: The model that failed, `name:version`: the one with the least validation error.
        errors: As a `DemoRecorder` has them.
        pace: What was meant to be sent.
        load: What the load generator counted.
        refused: Records that went to the dead letters, such as feedback about no query.
        uncommitted: Records that are not committed, by topic.
        verification: The comparison with the logs folded again.
    """

    broken: str
    errors: Mapping[str, FloatArray]
    pace: Pace
    load: LoadReport
    refused: int
    uncommitted: Mapping[str, int]
    verification: Verification

    def findings(self) -> Iterator[tuple[str, str, bool]]:
        """Name and value of what was found, and False where it shows that a promise was not kept."""
        load, pace, queries = self.load, self.pace, len(self.errors[ENSEMBLE])
        answered = f"{load.throughput_per_s or 0:,.0f} of {pace.rate_per_s:,.0f} queries a second were answered"
        yield "pace", f"{answered}; this machine answers {pace.measured_per_s:,.0f} at most", True
        once = load.answered == load.queries == queries and not load.duplicates
        yield "answers", f"{load.answered:,} of {queries:,} queries, {load.duplicates:,} more than once", once
        sent, folded = load.feedback_sent, self.verification.feedbacks
        yield "feedback", f"{sent:,} sent, {folded:,} read, {self.refused} refused", folded == sent and not self.refused
        committed = f"not committed: {self.uncommitted}" if self.uncommitted else "all committed"
        yield "offsets", committed, not self.uncommitted
        rows = f"{self.verification.rows:,} rows of {folded:,} feedbacks"
        verdict = "equal" if self.verification.equal else "DIFFER FROM"
        yield "learned", f"{rows} {verdict} the serial fold of the logs", self.verification.equal
        policies, alone = (self._wrong_while_broken(names) for names in (POLICIES, [self.broken]))
        said = f"{policies:.0%} of the answers were wrong while {self.broken} was wrong about {alone:.0%}"
        said += f"; {load.default_ratio:.0%} of all were default outputs"
        if is_late := load.default_ratio > MOST_DEFAULTS:
            said += f" ({', '.join(load.defaults)}): this machine is too slow for the demo, or busy with something else"
        elif policies >= alone * STORY_RATIO:
            said += ": the policies stayed with it"
        yield "story", said, not is_late and policies < alone * STORY_RATIO

    def error_rows(self) -> Iterator[list[str]]:
        """The name of each policy and model, and its errors by phase in percent; `-` where no query counts."""
        for name, wrong in self.errors.items():
            phases = [wrong[start:stop] for start, stop in pairwise(phase_edges(len(wrong)))]
            counted = [phase[~np.isnan(phase)] for phase in phases]
            shares = [f"{100 * phase.mean():.1f}" if len(phase) else "-" for phase in counted]
            yield [f"{name} broke" if name == self.broken else name, *shares]

    def picture(self) -> bytes:
        """Error of the last answers, of the policies beside every model alone, as PNG (after Clipper, figure 8)."""
        import matplotlib as mpl  # noqa: PLC0415 (60 MB, when the traffic is over)

        from clipper_stream.evaluation.report import plots  # noqa: PLC0415 (likewise)

        queries = len(self.errors[ENSEMBLE])
        window = max(LEAST_WINDOW, round(WINDOW_SHARE * queries / len(POLICIES)))
        _, *failure, end = (edge / 1000 for edge in phase_edges(queries))
        with mpl.rc_context(plots.PLOT):
            figure, (axes,) = plots.panels(1, 1, 4.6)
            for number, (name, wrong) in enumerate(self.errors.items()):
                counted = np.flatnonzero(~np.isnan(wrong))
                sums = np.cumsum([0, *wrong[counted]])
                shares = 100 * (sums[window:] - sums[:-window]) / window
                how = plots.line_style(number)
                how |= {"color": "#111111", "lw": 2.6, "ls": plots.DASHES[number]} if name in POLICIES else {}
                label = name if name in POLICIES else f"{name} alone"
                axes.plot(counted[window - 1 :] / 1000, shares, label=label, **how)
            axes.axvspan(*failure, color=plots.COLOURS[1], alpha=0.09, lw=0)
            axes.set(xlim=(0, end), xlabel="queries, thousands", ylim=(0, 105), ylabel="wrong answers, %")
            axes.set_title(f"Error of the last {window} answers")
            figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=9)
            return plots.png(figure)

    def _wrong_while_broken(self, names: Iterable[str]) -> float:
        _, start, stop, _ = phase_edges(len(self.errors[ENSEMBLE]))
        wrong = np.concatenate([self.errors[name][start:stop] for name in names])
        counted = wrong[~np.isnan(wrong)]
        return float(counted.mean()) if len(counted) else 1.0
