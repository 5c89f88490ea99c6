"""Checks a model by all laws and measures it; the function that a test calls."""

from collections.abc import Mapping, Sequence
from typing import Any

from clipper_stream.errors import ClipperError, InvalidSetting
from clipper_stream.models.model import Model, Rows
from clipper_stream.models.registry import file_digest, load_model
from clipper_stream.models.runner import explain
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_stream.models.testing.latency import advice, measure
from clipper_stream.models.testing.laws import LAWS, Broken, NotSeen
from clipper_stream.models.testing.report import Finding, LawsBroken, Report
from clipper_stream.models.testing.subject import Subject, copied, random_rows
from clipper_stream.models.warm_up import warm_up
from clipper_stream.query.inputs import RowSpec, to_matrix

_LOADS = "it_loads"
_LEAST_ROWS = 2


def check_model(
    model: Model | str,
    samples: Sequence[Any] | Rows | None = None,
    *,
    dtype: str = "float32",
    shape: Sequence[int] | None = None,
    runtime: str = "python",
    sha256: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    files: FileRules = STRICT,
    bad_rows: Sequence[Any] = (),
    deterministic: bool = True,
    tolerance: float = 1e-5,
    target_ms: float = 20.0,
    max_rows: int = 1024,
    budget_s: float = 2.0,
    seed: int = 0,
) -> Report:
    """Everything that can be found out about a model before it is deployed.

    Args:
        model: A model, or the URI of one, which is loaded as a host would load it.
        samples: Rows as a query has them, at least two; None: random ones of the dtype and shape.
        dtype: Of a row, as in a manifest's `input`.
        shape: Of a numeric row, as in a manifest's `input`.
        runtime: Of the URI.
        sha256: Of the URI's file; None: whatever it has.
        parameters: Of the URI, as in a manifest.
        files: Of the URI, as the operator's configuration says: whether it may be unpickled, and where it is kept.
        bad_rows: Rows that fit the spec and that the model should refuse.
        deterministic: As in a manifest: whether the same row has the same output.
        tolerance: By which two numbers may differ and be the same, relative: sums differ with the batch.
        target_ms: As in a manifest's `batch`, for the advice.
        max_rows: The largest batch that is measured.
        budget_s: No larger batch is measured after so many seconds.
        seed: Of random rows and of the order.

    >>> report = check_model("clipper_agents.examples.models:sum_of_row", [[1, 2], [3, 4]], shape=[2], budget_s=0.0)
    >>> report.kept, len(report.findings) > 10
    (True, True)

    Raises:
        InvalidSetting: no such dtype or shape, or fewer than two samples.
        InvalidInput: a sample does not fit dtype and shape.
    """
    spec = RowSpec(dtype, None if shape is None else tuple(shape))
    rows = random_rows(spec, seed=seed) if samples is None else to_matrix(spec, list(samples))
    if len(rows) < _LEAST_ROWS:
        raise InvalidSetting(f"{len(rows)} samples: give at least {_LEAST_ROWS}, or batches cannot be compared")
    source: dict[str, Any] | None = None
    try:
        if isinstance(model, str):
            digest = sha256 or file_digest(runtime, model)
            named = {"runtime": runtime, "uri": model, "sha256": digest}
            source = {**named, "parameters": dict(parameters or {}), "files": files}
            model = load_model(**source)
        warm_up(model, copied(rows[:1]))
    except ClipperError as error:
        return Report(findings=(_not_loaded(error), *_unseen()))
    subject = Subject(
        model=model,
        rows=rows,
        spec=spec,
        bad_rows=to_matrix(spec, list(bad_rows)) if len(bad_rows) else [],
        source=source,
        deterministic=deterministic,
        tolerance=tolerance,
        seed=seed,
    )
    findings = (Finding(law=_LOADS, state="kept", found="loaded and warm"), *(_look(subject, name) for name in LAWS))
    latencies = measure(model, rows, max_rows, budget_s)
    return Report(findings=findings, latencies=latencies, advice=advice(latencies, target_ms))


def assert_model(model: Model | str, samples: Sequence[Any] | Rows | None = None, **how: Any) -> None:
    """Nothing, when the model keeps every law; for a test of your own. Arguments are those of `check_model`.

    Raises:
        LawsBroken: an `AssertionError` with each broken law, what was found and what to do.
    """
    report = check_model(model, samples, **{"budget_s": 0.0, "max_rows": 1, **how})
    if report.broken:
        raise LawsBroken(report.broken)


def _look(subject: Subject, name: str) -> Finding:
    try:
        return Finding(law=name, state="kept", found=LAWS[name](subject))
    except Broken as broken:
        return Finding(law=name, state="broken", found=str(broken), advice=broken.advice)
    except NotSeen as reason:
        return Finding(law=name, state="unknown", found=str(reason))
    except BaseException as error:  # noqa: BLE001 - whatever a model raises where a law asks it itself
        return Finding(law=name, state="broken", found=explain(error), advice="correct the model: it raised")


def _not_loaded(error: ClipperError) -> Finding:
    found, _, todo = str(error).rpartition("; ")
    return Finding(law=_LOADS, state="broken", found=found or todo, advice=todo if found else "")


def _unseen() -> list[Finding]:
    return [Finding(law=name, state="unknown", found="the model was not loaded") for name in LAWS]
