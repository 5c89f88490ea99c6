"""What a version's confidence says of its losses: bins of confidence, and the mean loss that is expected before labels.

Rules of this file:
- Bins are fixed, so that sums over feedback add up over partitions. They are finer where classifiers are surer.
- Each label is compared with what the labels before it let expect, and then learned from. So errors are those of
  estimates, and not of a fit to the same labels.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

Z = 1.959963984540054
"""Quantile of the normal distribution for 95 %."""
Calibration = tuple[float, ...]
"""Feedbacks and losses of each bin, one pair after another; then labels that were expected, and the sums of expected
losses, of their variances, and of the losses that came. Empty: the version gives no confidence."""
EDGES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.997, 0.999)
BINS = len(EDGES) + 1
SUMS = 2 * BINS + 4
HALF_LIFE = 1_000.0
"""Labels of one partition after which one weighs half: some hundred in each bin that matters."""
LEAST_LABELS = 100.0
"""Before so many nothing is expected, and after so many expectations that were compared something is said."""
_KEEP, _KEEP_ERRORS = 0.5 ** (1.0 / HALF_LIFE), 0.5 ** (4.0 / HALF_LIFE)  # errors of late show that something changed


def confidence_bin(confidence: float) -> int:
    """The bin of a confidence, from 0 (unsure) to `BINS - 1`."""
    return bisect_right(EDGES, confidence)


def calibrated(before: Calibration, confidence: float, loss: float) -> Calibration:
    """The sums after one loss, in [0, 1], of an answer with this confidence.

    Source: Dawid, "Present position and potential developments: the prequential approach", JRSS A 147, 1984.
    """
    sums, place = [*before] if len(before) == SUMS else [0.0] * SUMS, confidence_bin(confidence)
    means, variances = _expected(sums)
    is_expected = math.fsum(sums[: 2 * BINS : 2]) >= LEAST_LABELS
    sums = [*(value * _KEEP for value in sums[: 2 * BINS]), *(value * _KEEP_ERRORS for value in sums[2 * BINS :])]
    sums[-2] *= _KEEP_ERRORS
    sums[2 * place] += 1.0
    sums[2 * place + 1] += loss
    if is_expected:
        mean = means[place]
        for back, value in enumerate((loss, mean * (1.0 - mean) + variances[place], mean, 1.0), 1):
            sums[-back] += value
    return tuple(sums)


@dataclass(frozen=True, slots=True)
class ExpectedLoss:
    """The mean loss of answers before their labels, with its 95 % interval, and how far such estimates were off.

    Attributes:
        mean, lower, upper: None where the estimate is refused.
        answers: Of how many answers.
        labels: How many labels, the older the less, were compared with what was expected of their answers.
        error: Mean loss that was expected of these minus the one that they showed.
        refused: Why the estimate is refused; empty: it is not.

    Source: NannyML documentation, "CBPE"; Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks",
    ICML 2017, section 4.1 (histogram binning).
    """

    mean: float | None
    lower: float | None
    upper: float | None
    answers: float
    labels: float
    error: float
    refused: str = ""


def expected_loss(calibration: Calibration, answers: Sequence[float]) -> ExpectedLoss | None:
    """What is expected of answers, counted by bin of their confidence; None where there are none, or nothing is known.

    >>> sums: Calibration = ()
    >>> for number in range(1000):  # a tenth of the answers is unsure, and every second of these wrong
    ...     sums = calibrated(sums, 0.45 if number % 10 == 0 else 0.99, float(number % 20 == 0))
    >>> found = expected_loss(sums, [50 if place in (1, 9) else 0 for place in range(BINS)])
    >>> round(found.mean, 2), found.refused
    (0.25, '')
    """
    count = sum(answers)
    if len(calibration) != SUMS or not count:
        return None
    labels, expected, variance, measured = calibration[2 * BINS :]
    error, by_chance = (expected - measured) / (labels or 1.0), Z * math.sqrt(variance) / (labels or 1.0)
    refused = ""
    if labels < LEAST_LABELS:
        refused = f"{labels:.0f} labels were compared with what was expected of them, of {LEAST_LABELS:.0f}"
    elif abs(error) > by_chance:
        refused = f"over {labels:.0f} labels it was {error:+.3f} off, more than the {by_chance:.3f} of chance"
    if refused:
        return ExpectedLoss(None, None, None, count, labels, error, refused)
    means, variances = _expected(calibration)
    mean = sum(map(mul, answers, means)) / count
    spread = sum(n * one * (1.0 - one) + n * n * of for n, one, of in zip(answers, means, variances, strict=True))
    half = Z * math.sqrt(spread) / count
    return ExpectedLoss(mean, max(0.0, mean - half), min(1.0, mean + half), count, labels, error)


def _expected(sums: Sequence[float]) -> tuple[list[float], list[float]]:
    """Mean loss expected in each bin, and the variance of this mean; each bin begins with one label at the mean."""
    counts, losses = sums[: 2 * BINS : 2], sums[1 : 2 * BINS : 2]
    overall = math.fsum(losses) / max(math.fsum(counts), 1.0)  # the same bits in every version of Python
    means = [min(1.0, (own + overall) / (n + 1.0)) for n, own in zip(counts, losses, strict=True)]
    return means, [mean * (1.0 - mean) / (n + 1.0) for mean, n in zip(means, counts, strict=True)]
