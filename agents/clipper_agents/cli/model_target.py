"""A model as options and files describe it, for commands that publish one or load it on this machine."""

import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import msgspec

from clipper_agents.cli.options import manifest_from
from clipper_agents.cli.worker import find_models_here
from clipper_agents.control.manifest_text import as_toml
from clipper_agents.control.state import Manifests
from clipper_agents.settings import load_settings
from clipper_loadgen.datasets import load_dataset
from clipper_stream.errors import InvalidSetting, ModelNotLoaded
from clipper_stream.models.registry import RUNTIMES, file_digest, runtime_for
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_stream.models.testing.subprocess_check import load_in_subprocess
from clipper_topics.manifests import ApplicationManifest, ColumnSpec, InputSpec, ModelManifest

MOST_ROWS = 1024
"""Of a batch that is tried, where no manifest says."""


def manifest_of(ref: str, stated: Mapping[str, Any], row: InputSpec | None = None) -> ModelManifest:
    """The manifest that the options describe.

    Args:
        ref: `name:version`.
        stated: Options by the name of the field, `uri` among them, `dtype` and `shape` of the input too; None: not
            given.
        row: Input of the application, for what no option says about a row.
    """
    name, _, version = ref.partition(":")
    stated_row = {} if row is None else {"input": msgspec.to_builtins(row)}
    content = _with_options({"name": name, "version": version, **stated_row}, stated)
    content.setdefault("runtime", _runtime(content["uri"]))
    if content["runtime"] != "python" and "://" not in content["uri"]:
        content["uri"] = str(Path(content["uri"]).resolve())
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
        text: `package.module:attribute`, a model file, a URL, or a `.toml` file with manifests.
        ref: `name:version`, of a file that declares several models.
        stated: As for `manifest_of`.
    """
    find_models_here()
    if text.endswith(".toml"):
        declared, files = _declared(Path(text), ref)
        content = msgspec.to_builtins(declared)
    else:
        runtime = stated.get("runtime") or _runtime(text)
        named = {"name": name_of(text) or "model", "uri": text, "runtime": runtime}
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
        _, fitted = load_in_subprocess(_source(model, files), RowSpec.of(model.input))
    except (OSError, ModelNotLoaded) as error:
        return f"model {model.ref}: {error}"
    takes, stated = (fitted and fitted.shape) or (), model.input.shape or ()
    if takes and stated and prod(takes) != prod(stated):
        return f"model {model.ref}: it takes rows of shape {[*takes]}, its manifest says {stated}: correct input.shape"
    return None


def _source(model: ModelManifest, files: FileRules) -> dict[str, Any]:
    named = {"runtime": model.runtime, "uri": model.uri, "parameters": model.parameters, "files": files}
    return named | {"sha256": model.sha256 or file_digest(model.runtime, model.uri)}


def with_fitted_row(model: ModelManifest, files: FileRules) -> ModelManifest:
    """The model with the input that its file says it was fitted with, where the manifest says nothing of it."""
    if model.input != InputSpec() or not RUNTIMES[model.runtime].NEEDS_DIGEST:
        return model
    try:
        _, fitted = load_in_subprocess(_source(model, files), RowSpec())
    except OSError as error:
        raise ModelNotLoaded(str(error)) from error
    if fitted is None:
        return model
    columns = [ColumnSpec(name=name, dtype=dtype) for name, dtype in fitted.columns]
    row = {"dtype": fitted.dtype, "shape": fitted.shape, "columns": columns, "missing": fitted.missing}
    return msgspec.structs.replace(model, input=msgspec.convert(row, InputSpec))


def read_samples(path: Path) -> list[Any]:
    """Read the rows of a `.jsonl` file (a row a line) or a `.npy` file (rows first)."""
    found = load_dataset(str(path))
    return [found.row(number) for number in range(len(found.rows))]


def alone(model: ModelManifest) -> ApplicationManifest:
    """The application that asks nothing but this model, has its name, and no deadline."""
    return ApplicationManifest(name=model.name, models=[model.ref], input=model.input, objective_ms=None)


def configuration_of(model: ModelManifest, folder: Path) -> str:
    """The configuration, for a file in this folder, with which `up` serves the model and an application of it alone."""
    if model.runtime != "python" and "://" not in model.uri:
        model = msgspec.structs.replace(model, uri=os.path.relpath(model.uri, folder))
    return as_toml(Manifests({model.name: alone(model)}, {model.ref: model}))


def _with_options(content: dict[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in stated.items() if value is not None}
    row = {name: given.pop(name) for name in ("dtype", "shape") if name in given}
    return content | given | ({"input": {**content.get("input", {}), **row}} if row else {})


def _runtime(text: str) -> str:
    found = runtime_for(text)
    if found is None:
        names = ", ".join(RUNTIMES)
        raise InvalidSetting(f"{text}: neither package.module:attribute nor known file: give --runtime, one of {names}")
    return found


def _declared(path: Path, ref: str | None) -> tuple[ModelManifest, FileRules]:
    settings = load_settings(path, {})
    models = settings.models
    chosen = [model for model in models if ref in (None, model.ref)]
    if len(chosen) != 1:
        names = ", ".join(model.ref for model in models) or "none"
        raise InvalidSetting(
            f"{path}: model {ref or 'not named'}; declared: {names}: name one with --model {names.partition(',')[0]}"
        )
    return chosen[0], settings.files
