"""The same model asked in another process, with another hash seed, run as `python -m` this module.

Standard input has a JSON object with what to load and rows as a query has them, standard output one with the outputs.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.model import Rows
from clipper_stream.models.registry import load_model
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.models.runner import predict_rows, warm_up
from clipper_stream.models.runtimes.model_files import FileRules
from clipper_stream.query.inputs import to_matrix

_PATIENCE_S = 120


def load_in_subprocess(
    source: Mapping[str, Any], spec: RowSpec, rows: Rows | None = None, within_s: float = _PATIENCE_S
) -> tuple[list[Any], RowSpec | None]:
    """Have another process load a model and ask it about the rows; without rows it is warmed up as by a host.

    The source has the arguments of `load_model`.

    Returns:
        The outputs, and, without rows, what the model says that it was fitted with; None where it does not say.

    Raises:
        OSError: the process ended with an error, or not at all; the message is its last line.
    """
    named = {**source, "files": asdict(source["files"])}
    asked = {"source": named, "spec": asdict(spec), "rows": None if rows is None else _written(rows)}
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
    outputs, fitted = json.loads(ended.stdout.splitlines()[-1])
    return outputs, None if fitted is None else RowSpec(**fitted)


def _written(rows: Rows) -> list[Any]:
    if isinstance(rows, np.ndarray):
        return list(rows.tolist())
    return [{"base64": base64.b64encode(row).decode()} if isinstance(row, bytes) else row for row in rows]


def _answer(asked: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any] | None]:
    spec, source = RowSpec(**asked["spec"]), {**asked["source"], "files": FileRules(**asked["source"]["files"])}
    model = load_model(**source, columns=spec.columns)
    if asked["rows"] is not None:
        return predict_rows(model, to_matrix(spec, asked["rows"])).outputs, None
    warm_up(model, spec.sample(1))
    fitted: RowSpec | None = getattr(model, "fitted_row", None)
    if fitted is not None and fitted.columns:
        without_values = [dict.fromkeys(name for name, _ in fitted.columns)]
        refused = predict_rows(load_model(**source, columns=fitted.columns), without_values).failed
        fitted = replace(fitted, missing=not refused)
    return [], None if fitted is None else asdict(fitted)


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(_answer(json.load(sys.stdin))) + "\n")
