"""What `clipper-stream model test` was given: a URI, a file or a manifest, and rows in a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from clipper_agents.settings.load import load_settings
from clipper_stream.errors import InvalidSetting
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_topics.manifests import ModelManifest

_RUNTIMES = {
    ".skops": "sklearn",
    ".onnx": "onnx",
    ".joblib": "joblib",
    ".pt": "torch",
    ".pt2": "torch_export",
    ".txt": "lightgbm",
    ".lgb": "lightgbm",
    ".ubj": "xgboost",
    ".json": "xgboost",
}
"""Runtime by the end of a file's name, where nobody says another."""


class Target(msgspec.Struct, kw_only=True, frozen=True):
    """The model to test, as a manifest would say it."""

    uri: str
    runtime: str
    sha256: str | None = None
    parameters: dict[str, Any] = {}
    dtype: str = "float32"
    shape: list[int] | None = None
    deterministic: bool = True
    target_ms: float = 20.0
    max_rows: int = 1024
    files: FileRules = STRICT


def read_target(text: str, ref: str | None, said: Mapping[str, Any]) -> Target:
    """The model that the text names, and what the options say instead.

    Args:
        text: `package.module:attribute`, a model file, a URL, or a `.toml` or `.json` file with manifests.
        ref: `name:version`, of a file that declares several models.
        said: Options by the name of the target's field; None: not given.

    >>> read_target("acme.models:f", None, {"dtype": None}).runtime, read_target("m.ubj", None, {}).runtime
    ('python', 'xgboost')

    Raises:
        InvalidSetting: no such file or model, or one whose runtime cannot be told.
    """
    declared = _declared(Path(text), ref) if said.get("runtime") is None else None
    found = (
        _of_manifest(*declared)
        if declared is not None
        else Target(uri=text, runtime=said.get("runtime") or _runtime(text))
    )
    given = {name: value for name, value in said.items() if value is not None}
    return msgspec.structs.replace(found, **given)


def read_samples(path: Path, dtype: str) -> list[Any]:
    """Read the rows of a file.

    Args:
        path: `.json` (a list of rows), `.jsonl` (a row a line), `.npy` (rows first), `.csv` (a row a line, no header).
        dtype: Of a row; a line of a `.csv` of texts is one text.

    Raises:
        InvalidSetting: no such file, or one that cannot be read so.
    """
    try:
        if path.suffix == ".npy":
            return list(np.load(path, allow_pickle=False).tolist())
        lines = path.read_text(encoding="utf-8").splitlines()
        if path.suffix == ".csv":
            return lines if dtype == "text" else [[float(cell) for cell in line.split(",")] for line in lines if line]
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in lines if line.strip()]
        rows = json.loads("\n".join(lines))
    except (OSError, ValueError) as error:
        raise InvalidSetting(f"rows {str(path)!r} cannot be read: {error}; give .json, .jsonl, .npy or .csv") from error
    if path.suffix != ".json" or not isinstance(rows, list):
        raise InvalidSetting(f"rows {str(path)!r}: give a list of rows in a .json, or .jsonl, .npy or .csv")
    return rows


def _runtime(text: str) -> str:
    if text.startswith(("http://", "https://")):
        return "oip"
    suffix = Path(text).suffix
    if suffix in _RUNTIMES:
        return _RUNTIMES[suffix]
    if ":" in text and "/" not in text:
        return "python"
    raise InvalidSetting(f"{text}: neither package.module:attribute nor a known file: give --runtime")


def _declared(path: Path, ref: str | None) -> tuple[ModelManifest, FileRules] | None:
    """The one manifest of a file, and what its `[models]` say; None when the file is a model, or none."""
    files = STRICT
    if path.suffix == ".toml":
        settings = load_settings(path, {})
        models, files = settings.models, settings.files
    elif path.suffix == ".json" and (content := _json_object(path)) is not None and "uri" in content:
        models = [_one(path, content)]
    else:
        return None
    chosen = [model for model in models if ref in (None, model.ref)]
    if len(chosen) != 1:
        names = ", ".join(model.ref for model in models) or "none"
        raise InvalidSetting(f"{path}: model {ref or 'not named'}; declared: {names}: name one with --model")
    return chosen[0], files


def _json_object(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _one(path: Path, content: dict[str, Any]) -> ModelManifest:
    try:
        return msgspec.convert(content, ModelManifest)
    except msgspec.ValidationError as error:
        raise InvalidSetting(f"{path}: {error}") from error


def _of_manifest(manifest: ModelManifest, files: FileRules) -> Target:
    return Target(
        uri=manifest.uri,
        runtime=manifest.runtime,
        sha256=manifest.sha256,
        parameters=manifest.parameters,
        dtype=manifest.input.dtype,
        shape=manifest.input.shape,
        deterministic=manifest.deterministic,
        target_ms=manifest.batch.target_ms,
        max_rows=manifest.batch.max_rows,
        files=files,
    )
