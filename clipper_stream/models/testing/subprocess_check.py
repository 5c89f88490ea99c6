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
from clipper_stream.models.runner import predict_rows
from clipper_stream.models.runtimes.model_files import FileRules
from clipper_stream.models.warm_up import warm_up
from clipper_stream.query.inputs import to_matrix

_PATIENCE_S = 120


def outputs_elsewhere(source: Mapping[str, Any], spec: RowSpec, rows: Rows) -> list[Any]:
    """The outputs of a model that another process loads; `source` has the arguments of `load_model`.

    Raises:
        OSError: the process ended with an error, or not at all; the message is its last line.
    """
    outputs: list[Any] = _asked_elsewhere(source, spec, _written(rows), _PATIENCE_S)
    return outputs


def load_in_subprocess(source: Mapping[str, Any], spec: RowSpec, within_s: float = _PATIENCE_S) -> RowSpec | None:
    """Have another process load a model and warm it up, as a host does; arguments and errors as `outputs_elsewhere`.

    Returns what the model says it was fitted with, and whether it takes missing values; None when it does not say.
    """
    fitted = _asked_elsewhere(source, spec, None, within_s)
    return None if fitted is None else RowSpec(**fitted)


def _asked_elsewhere(source: Mapping[str, Any], spec: RowSpec, rows: list[Any] | None, within_s: float) -> Any:
    asked = {"source": {**source, "files": asdict(source["files"])}, "spec": asdict(spec), "rows": rows}
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
    return json.loads(ended.stdout.splitlines()[-1])


def _written(rows: Rows) -> list[Any]:
    if isinstance(rows, np.ndarray):
        return list(rows.tolist())
    return [{"base64": base64.b64encode(row).decode()} if isinstance(row, bytes) else row for row in rows]


def _answer(asked: Mapping[str, Any]) -> Any:
    spec, source = RowSpec(**asked["spec"]), {**asked["source"], "files": FileRules(**asked["source"]["files"])}
    model = load_model(**source, columns=spec.columns)
    if asked["rows"] is not None:
        return predict_rows(model, to_matrix(spec, asked["rows"])).outputs
    warm_up(model, spec.sample(1))
    fitted: RowSpec | None = getattr(model, "fitted_row", None)
    if fitted is None:
        return None
    if fitted.columns:
        asked_with_none = [dict.fromkeys(name for name, _ in fitted.columns)]
        takes_none = not predict_rows(load_model(**source, columns=fitted.columns), asked_with_none).failed
        fitted = replace(fitted, missing=takes_none)
    return asdict(fitted)


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(_answer(json.load(sys.stdin))) + "\n")
