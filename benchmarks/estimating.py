"""How many logged decisions a second are estimated on one core, by each estimator and by all of them together?

    python benchmarks/estimating.py            # ten seconds; from arrays, without Kafka or files
    python benchmarks/estimating.py --quick

Chunks of 65,536 decisions, three models, twenty contexts, one decision in ten without feedback, one candidate. Timed is
CPU of this process, the best of some rounds. `choices`, `predictions` and `support` are done once a candidate whichever
estimators are used; an estimator's own row is its terms and their sums by block. `everything` is all of it.
"""

from rig import one_thread  # noqa: F401  # isort: skip (before numpy)

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from rig.results import Measures, Summary, Target
from rig.session import parsed, report, result_options

from clipper_stream.evaluation.estimators.censored_feedback import Delays
from clipper_stream.evaluation.estimators.outcome_model import OutcomeSums, with_predictions
from clipper_stream.evaluation.estimators.propensity_matrices import choices_of
from clipper_stream.evaluation.estimators.registry import make_estimators
from clipper_stream.evaluation.estimators.support import SupportSums
from clipper_stream.evaluation.log.columns import DecisionColumns

DECISIONS, MODELS, CONTEXTS, MISSING = 65_536, ("a:1", "b:1", "c:1"), 20, 0.1
MEASURES: Measures = {
    "million a second": lambda run: run["rate"] / 1e6,
    "ns a decision": lambda run: 1e9 / run["rate"],
}
LEAST_A_SECOND = 1e6
Work = Callable[[], Any]


def main() -> None:
    parser = result_options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=20, help="of each work in a round, of which the fastest counts")
    options = parsed(parser, {"rounds": 1, "repeats": 2})
    works = works_of(logged(1))
    runs = [
        {"round": number, "system": name, "rate": DECISIONS / least_s(work, options.repeats)}
        for number in range(options.rounds)
        for name, work in works.items()
    ]
    report(options, "median (least to most) of the rounds", runs, MEASURES, targets)


def logged(seed: int) -> DecisionColumns:
    """A chunk of a log in which each model is asked as often as any other."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(MODELS), DECISIONS)
    mask, loss = chosen[:, None] == np.arange(len(MODELS)), (rng.random(DECISIONS) < 0.2).astype(float)
    came = rng.random(DECISIONS) >= MISSING
    given: dict[str, Any] = {
        "offset": np.arange(DECISIONS),
        "at_ms": np.arange(DECISIONS),
        "context": rng.integers(0, CONTEXTS, DECISIONS).astype(np.int32),
        "propensity": mask / len(MODELS),
        "served": mask,
        "served_propensity": np.full(DECISIONS, 1 / len(MODELS)),
        "answered": mask,
        "feedback_offset": np.where(came, 1, -1),
        "feedback_at_ms": np.arange(DECISIONS) + rng.exponential(5_000, DECISIONS).astype(np.int64),
        "loss": np.where(mask & came[:, None], loss[:, None], np.nan),
        "answer_loss": np.where(came, loss, np.nan),
    }
    return replace(DecisionColumns.empty(MODELS, DECISIONS), contexts=tuple(map(str, range(CONTEXTS))), **given)


def works_of(columns: DecisionColumns) -> dict[str, Work]:
    """What is timed, by its name."""
    target = np.tile([0.8, 0.2, 0.0], (DECISIONS, 1))
    first = choices_of(columns, target)
    table = OutcomeSums.of(first, CONTEXTS).table()
    choices = with_predictions(first, table)
    estimators = make_estimators()

    def everything() -> None:
        made = choices_of(columns, target)
        OutcomeSums.of(made, CONTEXTS)
        made = with_predictions(made, table)
        SupportSums.of(made, CONTEXTS)
        for each in estimators:
            each.sums(made)

    return {
        "choices": lambda: choices_of(columns, target),
        "predictions": lambda: (OutcomeSums.of(first, CONTEXTS), with_predictions(first, table)),
        "support": lambda: SupportSums.of(choices, CONTEXTS),
        "delays": lambda: Delays.of(columns, 10 * DECISIONS),
        **{each.name: lambda each=each: each.sums(choices) for each in estimators},
        "everything": everything,
    }


def least_s(work: Work, rounds: int) -> float:
    """CPU seconds of the fastest round."""
    work()
    spent = []
    for _ in range(rounds):
        began_s = time.process_time()
        work()
        spent.append(time.process_time() - began_s)
    return min(spent)


def targets(found: Summary) -> list[Target]:
    measure = "million a second"
    what = "million decisions a second on one core"
    return [
        Target.of("replay", f"{name}: {what}", (found, name, measure), ">=", LEAST_A_SECOND / 1e6)
        for name in ("dr", "everything")
    ]


if __name__ == "__main__":
    main()
