"""A model as options and files describe it, for commands that publish one or load it on this machine."""

import csv
import json
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from clipper_agents.cli.options import manifest_from
from clipper_agents.cli.worker import find_models_here
from clipper_agents.settings.load import load_settings, read_file
from clipper_stream.errors import InvalidSetting, ModelNotLoaded
from clipper_stream.models.registry import RUNTIMES, file_digest, runtime_for
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_stream.models.testing.subprocess_check import load_in_subprocess
from clipper_topics.manifests import ApplicationManifest, ColumnSpec, InputSpec, ModelManifest

MOST_ROWS = 1024
"""Of a batch that is tried, where no manifest says."""


def manifest_of(
    ref: str, stated: Mapping[str, Any], file: Path | None = None, row: InputSpec | None = None
) -> ModelManifest:
    """The manifest that the options and the file describe together.

    Args:
        ref: `name:version`.
        stated: Options by the name of the field, `dtype` and `shape` of the input too; None: not given.
        file: With the rest, as a `[[model]]` table or at the top.
        row: Input of the application, for what neither of them says about a row.
    """
    name, _, version = ref.partition(":")
    content = _with_options(_table(file, name, version) if file else {}, stated) | {"name": name, "version": version}
    if "uri" not in content:
        raise InvalidSetting(f"model {ref} has no uri: give --uri, or --manifest FILE with one")
    uri = str(content["uri"])
    content.setdefault("runtime", _runtime(uri))
    if row is not None and isinstance(own := content.get("input", {}), dict):
        content["input"] = {**msgspec.to_builtins(row), **own}
    if content["runtime"] != "python" and "://" not in uri:
        beside = Path() if file is None or stated.get("uri") is not None else file.parent
        content["uri"] = str((beside / uri).resolve())
    return manifest_from(content, ModelManifest, f"model {ref}")


def name_of(target: str) -> str:
    """Return the name of a model that only its target names.

    >>> name_of("models/RF_v2.skops"), name_of("acme.models:brightness"), name_of("http://models:8080/v2/models/digits")
    ('rf-v2', 'brightness', 'digits')
    """
    last = target.rpartition("/")[2] if "/" in target or ":" not in target else target.rpartition(":")[2]
    return re.sub(r"[^a-z0-9]+", "-", Path(last).stem.lower()).strip("-")[:64]


def read_target(text: str, ref: str | None, stated: Mapping[str, Any]) -> tuple[ModelManifest, FileRules]:
    """The model that the text names with what the options say instead, and what may be done to load it.

    From then on modules of the working directory are found, as in a worker.

    Args:
        text: `package.module:attribute`, a model file, a URL, or a `.toml` or `.json` file with manifests.
        ref: `name:version`, of a file that declares several models.
        stated: As for `manifest_of`.
    """
    find_models_here()
    runtime = stated.get("runtime")
    declared = _declared(Path(text), ref) if runtime is None else None
    if declared is not None:
        content, files = msgspec.to_builtins(declared[0]), declared[1]
    else:
        named = {"name": name_of(text) or "model", "uri": text, "runtime": runtime or _runtime(text)}
        content, files = named | {"batch": {"max_rows": MOST_ROWS}}, STRICT
    return manifest_from(_with_options(content, stated), ModelManifest, text), files


def check_loads_here(models: Iterable[ModelManifest], files: FileRules) -> None:
    """Load models in other processes of this machine, as hosts would; `ModelNotLoaded` says why each that fails does.

    A model behind a server is not one of this machine.
    """
    find_models_here()
    local = [model for model in models if model.runtime != "oip" and not model.retired]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        problems = [text for text in pool.map(partial(_load_problem, files), local) if text]
    if problems:
        what = "nothing is published, because not every model loads on this machine"
        hint = "where only its hosts can load a model, give --unchecked"
        raise ModelNotLoaded("\n".join([f"{what}; {hint}", *problems]))


def _load_problem(files: FileRules, model: ModelManifest) -> str | None:
    try:
        load_in_subprocess(_source(model, files), RowSpec.of(model.input))
    except (OSError, ModelNotLoaded) as error:
        return f"model {model.ref}: {error}"
    return None


def _source(model: ModelManifest, files: FileRules) -> dict[str, Any]:
    named = {"runtime": model.runtime, "uri": model.uri, "parameters": model.parameters, "files": files}
    return named | {"sha256": model.sha256 or file_digest(model.runtime, model.uri)}


def with_fitted_row(model: ModelManifest, files: FileRules) -> ModelManifest:
    """The model with the input that its file says it was fitted with, where the manifest says nothing of it."""
    if model.input != InputSpec() or not RUNTIMES[model.runtime].NEEDS_DIGEST:
        return model
    try:
        fitted = load_in_subprocess(_source(model, files), RowSpec())
    except OSError as error:
        raise ModelNotLoaded(str(error)) from error
    if fitted is None:
        return model
    columns = [ColumnSpec(name=name, dtype=dtype) for name, dtype in fitted.columns]
    row = {"dtype": fitted.dtype, "shape": fitted.shape, "columns": columns, "missing": fitted.missing}
    return msgspec.structs.replace(model, input=msgspec.convert(row, InputSpec))


def alone(model: ModelManifest) -> ApplicationManifest:
    """The application that asks nothing but this model, has its name, and no deadline."""
    return ApplicationManifest(name=model.name, models=[model.ref], input=model.input, objective_ms=None)


def read_samples(path: Path, row: InputSpec) -> list[Any]:
    """Read the rows of a file.

    Args:
        path: `.json` (a list of rows), `.jsonl` (a row a line), `.npy` (rows first), `.csv` (a row a line, no header).
        row: Of the model; a line of a `.csv` of texts is one text, and that of a table begins with a header.
    """
    try:
        if path.suffix == ".npy":
            return list(np.load(path, allow_pickle=False).tolist())
        lines = path.read_text(encoding="utf-8").splitlines()
        if path.suffix == ".csv":
            if row.columns:
                return [_cells(row, cells) for cells in csv.DictReader(lines)]
            return (
                lines if row.dtype == "text" else [[float(cell) for cell in line.split(",")] for line in lines if line]
            )
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in lines if line.strip()]
        rows = json.loads("\n".join(lines))
    except (OSError, ValueError) as error:
        raise InvalidSetting(f"rows {str(path)!r} cannot be read: {error}; give .json, .jsonl, .npy or .csv") from error
    if path.suffix != ".json" or not isinstance(rows, list):
        raise InvalidSetting(f"rows {str(path)!r}: give a list of rows in a .json, or .jsonl, .npy or .csv")
    return rows


def _cells(row: InputSpec, cells: Mapping[str, str]) -> dict[str, Any]:
    """A row of a table from a line of CSV, where an empty cell is a missing value; other columns are left out."""
    numbers = {column.name for column in row.columns if column.dtype == "number"}
    known = {column.name: cells.get(column.name) or None for column in row.columns}
    return {name: float(text) if text and name in numbers else text for name, text in known.items()}


def _with_options(content: dict[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in stated.items() if value is not None}
    row = {name: given.pop(name) for name in ("dtype", "shape") if name in given}
    return content | given | ({"input": {**content.get("input", {}), **row}} if row else {})


def _runtime(text: str) -> str:
    found = runtime_for(text)
    if found is None:
        names = ", ".join(RUNTIMES)
        raise InvalidSetting(
            f"{text}: neither package.module:attribute nor a known file: give --runtime, one of {names}"
        )
    return found


def _declared(path: Path, ref: str | None) -> tuple[ModelManifest, FileRules] | None:
    """The one manifest of a file, and what its `[models]` say; None when the file is a model, or none."""
    if path.suffix == ".toml":
        settings = load_settings(path, {})
        models, files = settings.models, settings.files
    elif path.suffix == ".json" and (content := _json_object(path)) is not None and "uri" in content:
        content = {"runtime": runtime_for(str(content["uri"])) or "python", **content}
        models, files = [manifest_from(content, ModelManifest, str(path))], STRICT
    else:
        return None
    chosen = [model for model in models if ref in (None, model.ref)]
    if len(chosen) != 1:
        names = ", ".join(model.ref for model in models) or "none"
        raise InvalidSetting(
            f"{path}: model {ref or 'not named'}; declared: {names}: name one with --model {names.partition(',')[0]}"
        )
    return chosen[0], files


def _json_object(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _table(file: Path, name: str, version: str) -> dict[str, Any]:
    content = read_file(file)
    if "model" not in content:
        return content
    tables = [each for each in content["model"] if each.get("name") == name]
    found = [each for each in tables if str(each.get("version", "1")) == version] or tables
    if len(found) != 1:
        raise InvalidSetting(f"{file}: {len(found)} [[model]] tables are named {name!r}: one of version {version!r}")
    return dict(found[0])
