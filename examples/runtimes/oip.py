"""Ask a model behind the Open Inference Protocol as a model host does: MLServer, KServe, Triton.

Needs the extra oip and a server: `python examples/runtimes/oip.py http://127.0.0.1:8080/v2/models/digits 1,2,3,4`.
"""

import sys

import numpy as np

from clipper_stream.models.registry import load_model
from clipper_stream.models.runner import predict_rows


def main(url: str, row: str) -> None:
    """Print the output of one row, or why there is none."""
    model = load_model("oip", url, None, {"timeout_s": 2.0}, allowed=[url])
    outcome = predict_rows(model, np.array([[float(number) for number in row.split(",")]], "float32"))
    print(outcome.failed[0] if outcome.failed else outcome.outputs[0])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
