"""A model as options and files describe it, for commands that publish one or load it on this machine."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from clipper_agents.cli.options import manifest_from
from clipper_agents.cli.worker import find_models_here
from clipper_agents.settings import load_settings
from clipper_loadgen.datasets import load_dataset
from clipper_stream.errors import InvalidSetting, ModelNotLoaded
from clipper_stream.models.registry import RUNTIMES, runtime_for
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_stream.models.testing.subprocess_check import load_in_subprocess
from clipper_topics.manifests import InputSpec, ModelManifest

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
        content = {"name": "model", "uri": text, "runtime": runtime, "batch": {"max_rows": MOST_ROWS}}
        files = STRICT
    return manifest_from(_with_options(content, stated), ModelManifest, text), files


def check_loads_here(model: ModelManifest, files: FileRules) -> None:
    """Load a model in another process of this machine, as a host would, and return when it has loaded."""
    find_models_here()
    source = {"runtime": model.runtime, "uri": model.uri, "sha256": model.sha256, "parameters": model.parameters}
    try:
        load_in_subprocess({**source, "files": files}, model.input.dtype, model.input.shape)
    except OSError as error:
        raise ModelNotLoaded(
            f"nothing is published, because {model.ref} does not load on this machine: {error}; where only its hosts "
            "can load it, give --unchecked"
        ) from error


def read_samples(path: Path) -> list[Any]:
    """Read the rows of a `.jsonl` file (a row a line) or a `.npy` file (rows first)."""
    found = load_dataset(str(path))
    return [found.row(number) for number in range(len(found.rows))]


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


def _declared(path: Path, ref: str | None) -> tuple[ModelManifest, FileRules]:
    """The one manifest of a configuration, and what its `[models]` say."""
    settings = load_settings(path, {})
    models = settings.models
    chosen = [model for model in models if ref in (None, model.ref)]
    if len(chosen) != 1:
        names = ", ".join(model.ref for model in models) or "none"
        raise InvalidSetting(
            f"{path}: model {ref or 'not named'}; declared: {names}: name one with --model {names.partition(',')[0]}"
        )
    return chosen[0], settings.files
