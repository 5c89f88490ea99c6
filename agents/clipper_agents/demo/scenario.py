"""What happens in a demo: two applications, the load on them, the failure, what is recorded, and what it shows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clipper_agents.observability.exposition import Scrape
from clipper_agents.replay.verdicts import Verification
from clipper_loadgen import Dataset, LoadPlan, LoadReport
from clipper_loadgen.draws import FloatArray
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
slowly, so that it shows how policies choose and not how deadlines are missed: 32 are in time down to 64 a second."""
STORY_RATIO = 0.5
"""The policies have left the broken model where they err less than half as often; a machine on which most answers come
too late shows nothing of that."""
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
        load: What the load generator counted.
        metrics: What the router had counted when that was over.
        uncommitted: Records that are not committed, by topic.
        verification: The comparison with the logs folded again.
    """

    broken: str
    errors: Mapping[str, FloatArray]
    load: LoadReport
    metrics: Scrape
    uncommitted: Mapping[str, int]
    verification: Verification

    def findings(self) -> Iterator[tuple[str, str, bool]]:
        """Name and value of what was found, and False where it shows that a promise was not kept."""
        hits, lookups = (self.metrics.value(f"clipper_cache_{what}_total") for what in ("hits", "lookups"))
        yield "cache", f"{hits:,.0f} of {lookups:,.0f} rows were known", True
        load, queries = self.load, len(self.errors[ENSEMBLE])
        once = load.answered == load.queries == queries and not load.duplicates
        yield "answers", f"{load.answered:,} of {queries:,} queries, {load.duplicates:,} more than once", once
        outcomes = self.metrics.by("outcome", "clipper_feedback_total")
        counted = "".join(f", {count:,.0f} {outcome}" for outcome, count in outcomes.items())
        learned = outcomes.get("applied", 0) + outcomes.get("unlearned", 0)
        yield "feedback", f"{load.feedback_sent:,} sent{counted}", learned == load.feedback_sent
        committed = f"not committed: {self.uncommitted}" if self.uncommitted else "all committed"
        yield "offsets", committed, not self.uncommitted
        rows = f"{self.verification.rows:,} rows of {self.verification.feedbacks:,} feedbacks"
        verdict = "equal" if self.verification.equal else "DIFFER FROM"
        yield "learned", f"{rows} {verdict} the serial fold of the logs", self.verification.equal
        policies, alone = (self._wrong_while_broken(names) for names in (POLICIES, [self.broken]))
        said = f"{policies:.0%} of the answers were wrong while {self.broken} was wrong about {alone:.0%}"
        said += f"; {load.default_ratio:.0%} of all were default outputs"
        yield "story", said, policies < alone * STORY_RATIO

    def _wrong_while_broken(self, names: Iterable[str]) -> float:
        _, start, stop, _ = phase_edges(len(self.errors[ENSEMBLE]))
        wrong = np.concatenate([self.errors[name][start:stop] for name in names])
        counted = wrong[~np.isnan(wrong)]
        return float(counted.mean()) if len(counted) else 1.0
