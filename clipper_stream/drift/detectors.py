"""Detectors of drift: what each has to be, and those of the library river by the names that a manifest has.

Rules of this file:
- Every detector is deterministic: the same losses lead to the same detections.
- river is imported when the first detector is made, so that who declares one need not have it.
"""

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

from clipper_stream.errors import InvalidSetting, ModelNotLoaded, UnknownName


class Detector(Protocol):
    """Reads the losses of one model, in their order; has a state, and is made anew after each detection."""

    def update(self, loss: float) -> bool:
        """Take a loss in; True when it has changed.

        Args:
            loss: In [0, 1].
        """
        ...


class DetectorSpec(Protocol):
    """The parameters of a detector: a frozen dataclass, checked when it is made, also where no library is there."""

    name: ClassVar[str]
    binary: ClassVar[bool]
    """Whether losses have to be 0 or 1; what lies between says nothing to it."""

    def make(self) -> Detector:
        """A detector that has read nothing.

        Raises:
            ModelNotLoaded: the library is not installed; the message says how it is.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Adwin(DetectorSpec):
    """Adaptive windowing: two parts of a window of variable length differ more than chance allows.

    Needs no scale and no bound, and is the default.

    Attributes:
        delta: Of its bound on false alarms, in (0, 1); smaller: fewer, and later detections.

    >>> detector = Adwin().make()
    >>> [at for at in range(400) if detector.update(float(at >= 200))]
    [223]

    Source: Bifet and Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SDM 2007.
    """

    name: ClassVar[str] = "adwin"
    binary: ClassVar[bool] = False
    delta: float = 0.002

    def __post_init__(self) -> None:
        _check("delta", self.delta, above=0.0, below=1.0)

    def make(self) -> Detector:
        return _river("ADWIN", delta=self.delta)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageHinkley(DetectorSpec):
    """Page-Hinkley: the sum of deviations from the mean has left its lowest, or highest, point by a threshold.

    Attributes:
        delta: Deviation that is none, in [0, 1).
        threshold: Of the sum, > 0; a jump by j is found after about threshold / (j - delta) losses.
        least: Losses before the first detection, >= 1.

    >>> detector = PageHinkley(threshold=10.0).make()
    >>> [at for at in range(220) if detector.update(float(at >= 200))]
    [210]

    Source: Page, "Continuous Inspection Schemes", Biometrika 41, 1954.
    """

    name: ClassVar[str] = "page_hinkley"
    binary: ClassVar[bool] = False
    delta: float = 0.05
    threshold: float = 20.0
    least: int = 30

    def __post_init__(self) -> None:
        _check("delta", self.delta, least=0.0, below=1.0)
        _check("threshold", self.threshold, above=0.0)
        _check("least", self.least, least=1, whole=True)

    def make(self) -> Detector:
        return _river("PageHinkley", delta=self.delta, threshold=self.threshold, min_instances=self.least, mode="both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kswin(DetectorSpec):
    """Kolmogorov-Smirnov windowing: the newest losses have another distribution than a sample of the ones before.

    For losses with many values; a test costs half a millisecond a loss. Sees a change of spread at the same mean.

    Attributes:
        alpha: Level of each test, in (0, 1); there is one a loss, so it has to be small.
        window: Losses that are kept, > `newest`.
        newest: Of them the newest, which are compared with the others, >= 2.

    Source: Raab, Heusinger and Schleif, "Reactive Soft Prototype Computing for Concept Drift Streams", 2020.
    """

    name: ClassVar[str] = "kswin"
    binary: ClassVar[bool] = False
    alpha: float = 1e-4
    window: int = 300
    newest: int = 100

    def __post_init__(self) -> None:
        _check("alpha", self.alpha, above=0.0, below=1.0)
        _check("newest", self.newest, least=2, whole=True)
        _check("window", self.window, least=2 * self.newest, most=10_000, whole=True)

    def make(self) -> Detector:
        return _river("KSWIN", alpha=self.alpha, window_size=self.window, stat_size=self.newest, seed=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ddm(DetectorSpec):
    """Drift detection method: the share of errors has risen by some standard deviations above its lowest.

    Sees rises alone. Its alarms without a reason come with time: it compares with the lowest of ever more shares.

    Attributes:
        least: Losses before the first detection, >= 1.
        deviations: Standard deviations, > 0.

    Source: Gama, Medas, Castillo and Rodrigues, "Learning with Drift Detection", SBIA 2004.
    """

    name: ClassVar[str] = "ddm"
    binary: ClassVar[bool] = True
    least: int = 100
    deviations: float = 4.0

    def __post_init__(self) -> None:
        _check("least", self.least, least=1, whole=True)
        _check("deviations", self.deviations, above=0.0)

    def make(self) -> Detector:
        return _river("binary.DDM", binary=True, warm_start=self.least, drift_threshold=self.deviations)


DETECTORS: Mapping[str, type[Adwin | PageHinkley | Kswin | Ddm]] = {
    kind.name: kind for kind in (Adwin, PageHinkley, Kswin, Ddm)
}
"""Every detector by its name."""


def make_spec(name: str, parameters: Mapping[str, Any], loss: str) -> DetectorSpec:
    """The detector of this name, with its parameters checked; needs no library.

    Args:
        name: One of `DETECTORS`.
        parameters: What its class documents; what is left out has its default.
        loss: How the application compares a label with an output.

    >>> make_spec("adwin", {"delta": 0.01}, "absolute")
    Adwin(delta=0.01)

    Raises:
        UnknownName: there is no such detector.
        InvalidSetting: a parameter is unknown or outside of its bounds, or the losses are none for this detector.
    """
    kind = DETECTORS.get(name)
    if kind is None:
        raise UnknownName(f"detector {name!r}: use one of {', '.join(sorted(DETECTORS))}")
    known = [field.name for field in fields(kind)]
    for parameter in parameters:
        if parameter not in known:
            raise InvalidSetting(f"parameter {parameter!r} of detector {name!r}: use one of {', '.join(known)}")
    if kind.binary and loss != "zero_one":
        raise InvalidSetting(f"detector {name!r} reads losses of 0 and 1, the loss is {loss!r}: use adwin instead")
    return kind(**parameters)


@dataclass(slots=True)
class _RiverDetector:
    found: Any
    binary: bool

    def update(self, loss: float) -> bool:
        if self.binary and loss not in {0.0, 1.0}:
            return False
        self.found.update(loss == 1.0 if self.binary else loss)
        return bool(self.found.drift_detected)


def _river(path: str, *, binary: bool = False, **parameters: Any) -> Detector:
    module, _, name = f"river.drift.{path}".rpartition(".")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ModelNotLoaded(
            f"drift detection needs a library ({error}): pip install 'clipper-stream[drift]'"
        ) from error
    return _RiverDetector(getattr(found, name)(**parameters), binary)


def _check(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = 1e9,
    below: float = math.inf,
    whole: bool = False,
) -> None:
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and least <= value <= most and above < value < below):
        low = f"above {above:g}" if above > -math.inf else f"at least {least:g}"
        high = f"below {below:g}" if below < math.inf else f"at most {most:g}"
        raise InvalidSetting(f"{name} is {value!r}: give a {'whole number' if whole else 'number'} {low}, {high}")
