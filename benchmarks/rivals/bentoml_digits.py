"""BentoML: a service with one worker and a batchable method; a regression of their times decides the size of batches.

bentoml serve bentoml_digits:Digits --port PORT
"""

import sys
from pathlib import Path

import bentoml
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from models import digits


@bentoml.service(workers=1)
class Digits:
    """One label a row."""

    @bentoml.api(batchable=True, max_batch_size=1_000)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Labels of the rows of several requests."""
        return digits(rows.astype(np.float32))
