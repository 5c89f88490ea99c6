"""An evaluation as it might come out, made by hand."""

import math

from clipper_stream.evaluation.results import (
    CandidateResult,
    ContextResult,
    Estimate,
    Evaluation,
    EvidenceSize,
    Series,
)

SPANS = tuple(1_700_000_000_000 + 1_800_000 * number for number in range(48))


def estimate(value: float, width: float = 0.01) -> Estimate:
    return Estimate(value=value, low=value - width, high=value + width, interval="bootstrap")


def candidate(name: str, loss: float, **given) -> CandidateResult:
    shares = {"svm:1": [0.7] * 48, "knn:1": [0.3] * 48}
    plain = {
        "kind": "fixed policy",
        "headline": "dr",
        "estimates": {"ips": estimate(loss + 0.004, 0.03), "snips": estimate(loss, 0.02), "dr": estimate(loss)},
        "difference": estimate(loss - 0.1, 0.008),
        "standing": EvidenceSize(used=9000, carrying=4321.4, unsupported_ratio=0.0),
        "series": Series(at_ms=SPANS, loss=[loss + 0.02 * math.sin(n / 6) for n in range(48)], shares=shares),
    }
    return CandidateResult(name=name, **{**plain, **given})


def evaluation(*candidates: CandidateResult, **given) -> Evaluation:
    logged = candidate(
        "epsilon_greedy", 0.1, kind="logged", headline="on_policy", estimates={"on_policy": estimate(0.1, 0.004)}
    )
    plain = {
        "application": "digits", "since_ms": SPANS[0], "until_ms": SPANS[-1], "decisions": 10_000,
        "with_feedback": 9_000, "confidence": 0.95, "logged": logged, "candidates": candidates,
        "notes": ("1,000 decisions have no feedback yet.",),
    }  # fmt: skip
    return Evaluation(**{**plain, **given})


def contexts() -> list[ContextResult]:
    return [
        ContextResult(context=name, decisions=900, logged=0.1, candidate=0.1 + by, difference=estimate(by, 0.02))
        for name, by in (("a", -0.05), ("b", 0.03), (None, 0.0))
    ]
