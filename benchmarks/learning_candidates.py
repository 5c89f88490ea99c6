"""How near does rejection come to what a policy that learns really loses, and how fast is it?

    python benchmarks/learning_candidates.py                                              # two minutes; seeded
    python benchmarks/learning_candidates.py --page benchmarks/results/learning-candidates.md  # and the page
    python benchmarks/learning_candidates.py --quick                                      # its numbers say nothing

Three models that lose 0.1, 0.3 and 0.5, a query a millisecond, feedback up to 0.2 s later. Each log was decided by
other probabilities than the candidate's. The candidate begins with nothing learned.

- learned: share of the decisions with feedback from which the candidate learns. It learns on a history that is so much
  shorter than the log, so what it is estimated to lose is what it loses over that many decisions.
- truth: mean loss over as many decisions of streams of its own, of which all losses are known, in as much time: a
  delay is then as many decisions.
- bias: mean over the seeds of the estimate less the truth, and its standard error; RMSE: of one log's estimate.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from rig.session import page_options, parsed, write_page

from clipper_stream.evaluation.candidates.candidate import LearningPolicy
from clipper_stream.evaluation.candidates.candidate_text import parse_candidate
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.configuration import Configuration
from clipper_stream.evaluation.sequential.exact_simulation import simulate
from clipper_stream.evaluation.sequential.rejection_sampling import reject
from clipper_stream.evaluation.sequential.replay import ReplayRun

MODELS = ("good:1", "middling:1", "bad:1")
LOSSES = (0.1, 0.3, 0.5)
CANDIDATES = ("exp3", "epsilon_greedy")
DELAY_MS = 200


@dataclass(frozen=True, slots=True)
class Log:
    """How decisions were made."""

    name: str
    probabilities: tuple[float, float, float]
    audit_ratio: float = 0.0


LOGS = (
    Log("even", (1 / 3, 1 / 3, 1 / 3)),
    Log("uneven", (0.1, 0.6, 0.3)),
    Log("near certain", (0.02, 0.96, 0.02)),
    Log("near certain, a tenth audited", (0.02, 0.96, 0.02), 0.1),
)
Walk = Callable[[DecisionColumns, LearningPolicy], Iterator[ReplayRun]]
WALKS: dict[str, Walk] = {
    "rejection": lambda log, candidate: reject([log], candidate, ratio=least_propensity(log)),
    "simulation of audits": lambda log, candidate: simulate([log], candidate),
}


def main() -> None:
    parser = page_options(__doc__)
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--rows", type=int, default=2_000, help="decisions in a log")
    options = parsed(parser, {"seeds": 2, "rows": 400})
    seeds, rows = options.seeds, options.rows
    lines = [*accuracy(seeds, rows), "", *speed(rows * 20)]
    print("\n".join(lines))
    if options.page is not None:
        made = f"{seeds} logs of {rows:,} decisions a row, by `benchmarks/learning_candidates.py`."
        write_page(options.page, "Candidates that learn, estimated", "", made, __doc__, lines)


def accuracy(seeds: int, rows: int) -> Iterator[str]:
    yield "## Accuracy\n"
    yield "| candidate | log | estimated by | learned | truth | bias | RMSE |"
    yield "|---|---|---|---|---|---|---|"
    for text in CANDIDATES:
        candidate = parse_candidate(text, MODELS)
        assert isinstance(candidate, LearningPolicy)
        for log in LOGS:
            for way, walk in WALKS.items():
                if way.startswith("simulation") and not log.audit_ratio:
                    continue
                runs = [next(walk(decided(log, losses(rows, seed), seed), candidate)) for seed in range(seeds)]
                learned = int(np.mean([run.learned.sum() for run in runs]))
                truth = online(candidate, max(1, learned), rows, seeds)
                yield row(text, log.name, way, learned / rows, truth, [value(run) for run in runs])


def row(candidate: str, log: str, way: str, learned: float, truth: list[float], found: list[float]) -> str:
    errors = np.asarray(found) - np.mean(truth)
    uncertain = np.hypot(np.std(errors, ddof=1), np.std(truth, ddof=1)) / np.sqrt(len(found))
    rmse = np.sqrt(np.mean(errors**2))
    shown = f"{100 * learned:.1f} % | {np.mean(truth):.3f} | {errors.mean():+.4f} ± {uncertain:.4f} | {rmse:.4f}"
    return f"| `{candidate}` | {log} | {way} | {shown} |"


def speed(rows: int) -> Iterator[str]:
    yield "## Speed\n"
    yield f"Decisions a second of CPU on one core, of a log of {rows:,} with feedback about all.\n"
    yield f"| candidate | {' | '.join(WALKS)} |"
    yield f"|---|{'---|' * len(WALKS)}"
    whole = losses(rows, 0)
    for text in CANDIDATES:
        candidate = parse_candidate(text, MODELS)
        assert isinstance(candidate, LearningPolicy)
        rates = []
        for way, walk in WALKS.items():
            log = everything(whole, rows) if way.startswith("simulation") else decided(LOGS[0], whole, 0)
            began_s = time.process_time()
            list(walk(log, candidate))
            rates.append(f"{rows / (time.process_time() - began_s):,.0f}")
        yield f"| `{text}` | {' | '.join(rates)} |"


def losses(rows: int, seed: int) -> np.ndarray:
    return (np.random.default_rng([seed, 0]).random((rows, 3)) < LOSSES).astype(float)


def decided(log: Log, whole: np.ndarray, seed: int) -> DecisionColumns:
    rng = np.random.default_rng([seed, 1])
    rows = len(whole)
    chosen = rng.choice(3, rows, p=log.probabilities)
    served = np.eye(3, dtype=bool)[chosen]
    asked = served | (rng.random(rows) < log.audit_ratio)[:, None]
    propensity = np.where(asked, log.audit_ratio + (1 - log.audit_ratio) * np.asarray(log.probabilities), 0.0)
    found = columns(whole, propensity, served, np.asarray(log.probabilities)[chosen], rows)
    return replace(found, configs={0: Configuration(audit_ratio=log.audit_ratio)})


def everything(whole: np.ndarray, span_ms: int) -> DecisionColumns:
    return columns(whole, np.ones(whole.shape), np.ones(whole.shape, bool), np.ones(len(whole)), span_ms)


def columns(
    whole: np.ndarray, propensity: np.ndarray, served: np.ndarray, probability: np.ndarray, span_ms: int
) -> DecisionColumns:
    place = np.arange(len(whole))
    at_ms = place * span_ms // len(whole)
    return replace(
        DecisionColumns.empty(MODELS, len(whole)),
        contexts=(None,),
        policies=("logged",),
        values=('"unsaid"',),
        propensity=propensity,
        answered=propensity > 0.0,
        loss=np.where(propensity > 0.0, whole, np.nan),
        served=served,
        served_propensity=probability,
        at_ms=at_ms,
        feedback_at_ms=at_ms + place * 7919 % DELAY_MS,
        partition=(place % 4).astype(np.int32),
        offset=place,
        query_offset=place,
        feedback_offset=place,
    )


def online(candidate: LearningPolicy, rows: int, span_ms: int, seeds: int) -> list[float]:
    """Loss on streams of its own."""
    streams = (everything(losses(rows, 10_000 + seed), span_ms) for seed in range(seeds))
    return [value(next(simulate([stream], candidate, seed=seed))) for seed, stream in enumerate(streams)]


def least_propensity(log: DecisionColumns) -> float:
    return float(log.propensity[log.asked].min())


def value(run: ReplayRun) -> float:
    weight = run.denominator.sum()
    return float(run.numerator.sum() / weight) if weight else float("nan")


if __name__ == "__main__":
    main()
