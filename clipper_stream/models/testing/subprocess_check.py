"""The same model asked in another process, with another hash seed, run as `python -m` this module.

Standard input has a JSON object with what to load and rows as a query has them, standard output one with the outputs.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.model import Rows
from clipper_stream.models.registry import load_model
from clipper_stream.models.runner import predict_rows, sample_rows, warm_up
from clipper_stream.models.runtimes.model_files import FileRules
from clipper_stream.query.inputs import RowSpec, to_matrix

_PATIENCE_S = 120


def load_in_subprocess(
    source: Mapping[str, Any],
    dtype: str,
    shape: Sequence[int] | None,
    rows: Rows | None = None,
    within_s: float = _PATIENCE_S,
) -> list[Any]:
    """Have another process load a model, and return its outputs; without rows it is warmed up as by a host.

    The source has the arguments of `load_model`; dtype and shape are those of a row, as in a manifest.

    Raises:
        OSError: the process ended with an error, or not at all; the message is its last line.
    """
    question = {"dtype": dtype, "shape": shape, "rows": None if rows is None else _written(rows)}
    asked = {"source": {**source, "files": asdict(source["files"])}, **question}
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": seed}
    try:
        ended = subprocess.run(  # noqa: S603 - this module, and nothing of the model's
            [sys.executable, "-W", "ignore::RuntimeWarning:runpy", "-m", __name__],
            input=json.dumps(asked),
            env=environ,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"no answer after {within_s:g} s") from error
    if ended.returncode != 0:
        said = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
        raise OSError(said.removeprefix(f"{ModelNotLoaded.__module__}.{ModelNotLoaded.__name__}: "))
    outputs: list[Any] = json.loads(ended.stdout.splitlines()[-1])
    return outputs


def _written(rows: Rows) -> list[Any]:
    if isinstance(rows, np.ndarray):
        return list(rows.tolist())
    return [{"base64": base64.b64encode(row).decode()} if isinstance(row, bytes) else row for row in rows]


def _answer(asked: Mapping[str, Any]) -> list[Any]:
    shape = asked["shape"]
    model = load_model(**{**asked["source"], "files": FileRules(**asked["source"]["files"])})
    if asked["rows"] is None:
        warm_up(model, sample_rows(asked["dtype"], shape, 1))
        return []
    spec = RowSpec(asked["dtype"], None if shape is None else tuple(shape))
    return predict_rows(model, to_matrix(spec, asked["rows"])).outputs


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(_answer(json.load(sys.stdin))) + "\n")
