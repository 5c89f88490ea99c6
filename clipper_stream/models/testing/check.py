"""Checks a model by all laws; the function that a test calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clipper_stream.errors import ClipperError, InvalidSetting
from clipper_stream.models.model import Model, Rows
from clipper_stream.models.registry import file_digest, load_model
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.models.runner import explain, warm_up
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_stream.models.testing.laws import LAWS, Broken, NotSeen, Subject
from clipper_stream.query.inputs import to_matrix

_LOADS = "it_loads"
_LEAST_ROWS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one law: what was seen, with the value and the bound, and what to do where it is broken."""

    law: str
    state: Literal["kept", "broken", "unknown"]
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that was found about a model, a finding a law."""

    findings: tuple[Finding, ...]

    @property
    def broken(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.state == "broken"]


def check_model(
    model: Model | str,
    samples: Sequence[Any] | Rows | None = None,
    *,
    dtype: str = "float32",
    shape: Sequence[int] | None = None,
    columns: Sequence[Sequence[str]] = (),
    missing: bool = False,
    runtime: str = "python",
    sha256: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    files: FileRules = STRICT,
    deterministic: bool = True,
    tolerance: float = 1e-5,
) -> Report:
    """Everything that can be found out about a model before it is deployed.

    The model is one, or the URI of one, which is loaded as a host would load it: with `runtime`, `sha256` (None:
    whatever it has) and `parameters` of a manifest, and `files` as the operator's configuration says. Samples are rows
    as a query has them, at least two; None: random ones. `dtype`, `shape`, `columns`, each `(name, dtype)`, `missing`
    and `deterministic` are those of a manifest. Numbers that differ by `tolerance`, relative, are the same: sums differ
    with the batch.

    >>> report = check_model("clipper_agents.examples.models:sum_of_row", [[1, 2], [3, 4]], shape=[2])
    >>> report.broken, len(report.findings)
    ([], 9)

    Raises:
        InvalidSetting: no such dtype or shape, or fewer than two samples.
        InvalidInput: a sample does not fit dtype and shape.
    """
    spec = RowSpec(dtype, shape, columns, missing)
    rows = spec.random(16) if samples is None else to_matrix(spec, list(samples))
    if len(rows) < _LEAST_ROWS:
        raise InvalidSetting(f"{len(rows)} samples: give at least {_LEAST_ROWS}, or batches cannot be compared")
    source: dict[str, Any] | None = None
    try:
        if isinstance(model, str):
            digest = sha256 or file_digest(runtime, model)
            named = {"runtime": runtime, "uri": model, "sha256": digest}
            source = {**named, "parameters": dict(parameters or {}), "files": files}
            model = load_model(**source, columns=spec.columns)
        warm_up(model, rows[:1].copy())
    except ClipperError as error:
        not_loaded = Finding(law=_LOADS, state="broken", found=str(error))
        unseen = (Finding(law=name, state="unknown", found="the model was not loaded") for name in LAWS)
        return Report(findings=(not_loaded, *unseen))
    subject = Subject(
        model=model,
        rows=rows,
        spec=spec,
        source=source,
        deterministic=deterministic,
        tolerance=tolerance,
    )
    findings = (Finding(law=_LOADS, state="kept", found="loaded and warm"), *(_look(subject, name) for name in LAWS))
    return Report(findings=findings)


def assert_model(model: Model | str, samples: Sequence[Any] | Rows | None = None, **how: Any) -> None:
    """Nothing, when the model keeps every law; for a test of your own. Arguments are those of `check_model`.

    Raises:
        AssertionError: with each broken law, what was found and what to do.
    """
    if broken := check_model(model, samples, **how).broken:
        lines = [f"- {each.law}: {each.found}" for each in broken]
        raise AssertionError("\n".join([f"the model breaks {len(broken)} laws:", *lines]))


def _look(subject: Subject, name: str) -> Finding:
    try:
        return Finding(law=name, state="kept", found=LAWS[name](subject))
    except Broken as broken:
        return Finding(law=name, state="broken", found=str(broken))
    except NotSeen as reason:
        return Finding(law=name, state="unknown", found=str(reason))
    except BaseException as error:  # noqa: BLE001 - whatever a model raises where a law asks it itself
        return Finding(law=name, state="broken", found=f"{explain(error)}; correct the model: it raised")
