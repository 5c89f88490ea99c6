"""Three versions of one model of handwritten digits: an early one, a better one, and one with a mistake in it."""

from pathlib import Path

import numpy as np
import skops.io
from sklearn.svm import SVC

from clipper_agents.demo.data import Digits, distorted, part

EARLY_ROWS = 200
"""Of the training pictures: when the first version was trained, there were not more."""


def train_versions(digits: Digits, folder: Path) -> dict[str, Path]:
    """Train and save each version; the files by version.

    The first errs on about 11 % of the traffic, the second on 4 %. The third is what happens when training scales the
    pictures to [0, 1] and serving does not: it loads, its answers have the right type, and 90 % of them are wrong.
    """
    rng = np.random.default_rng(7)
    early = distorted(part(digits.train, 0, EARLY_ROWS), 2, rng)
    everything = distorted(digits.train, 3, rng)
    versions = {
        "1": SVC(gamma=0.001, C=10.0).fit(early.rows.astype(np.float32), early.labels),
        "2": SVC(gamma=0.001, C=10.0).fit(everything.rows.astype(np.float32), everything.labels),
        "3": SVC(gamma=1.0).fit((everything.rows / 16.0).astype(np.float32), everything.labels),
    }
    files = {version: folder / f"digits-{version}.skops" for version in versions}
    for version, estimator in versions.items():
        skops.io.dump(estimator, files[version])
    return files
