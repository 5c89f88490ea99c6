"""How often answers of a confidence were right."""

from collections.abc import Iterable

import numpy as np

from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.results import CalibrationBin

BINS = 10


def calibration(chunks: Iterable[DecisionColumns]) -> tuple[CalibrationBin, ...]:
    """The logged answers by their confidence, defaults left out; ranges without an answer are left out.

    >>> from clipper_stream.evaluation.log.arrays import logged
    >>> columns = logged([[1.0]] * 2, [[0.0]] * 2, confidence=[0.95, 0.97], answer_loss=[0.0, 1.0])
    >>> [(one.answers, one.right) for one in calibration([columns])]
    [(2, 0.5)]

    Source: as `CalibrationBin`.
    """
    answers, confidence, loss = np.zeros(BINS), np.zeros(BINS), np.zeros(BINS)
    for columns in chunks:
        known = columns.with_feedback & ~columns.default & ~np.isnan(columns.answer_loss)
        said = columns.confidence[known]
        place = np.clip((said * BINS).astype(np.int64), 0, BINS - 1)
        answers += np.bincount(place, minlength=BINS)
        confidence += np.bincount(place, said, BINS)
        loss += np.bincount(place, columns.answer_loss[known], BINS)
    return tuple(
        CalibrationBin(
            low=number / BINS,
            high=(number + 1) / BINS,
            answers=int(answers[number]),
            confidence=float(confidence[number] / answers[number]),
            right=float(1.0 - loss[number] / answers[number]),
        )
        for number in range(BINS)
        if answers[number]
    )
