"""MLServer's Kafka mode, with adaptive batching (64 rows, 2 ms): the model as a custom runtime.

At most once: it starts at the end of the topic, without a consumer group, commits nothing, and makes a task of every
record that it has fetched. Its messages are V2 inference requests with a header that names the model.
"""

import sys
from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from models import digits


class Digits(MLModel):
    """One output a row."""

    async def load(self) -> bool:
        """Nothing to load: the weights come with the import."""
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Labels of the rows of the only input."""
        rows = np.asarray(NumpyCodec.decode_input(payload.inputs[0]), np.float32)
        output = NumpyCodec.encode_output("output", digits(rows).reshape(-1, 1))
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[output])
