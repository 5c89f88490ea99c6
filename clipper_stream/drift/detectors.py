"""Detectors of drift, those of the library river, by the names that a manifest has.

Rules of this file:
- Every detector is deterministic: the same losses lead to the same detections.
- Without a change of the mean at most 1 % of sequences of 5,000 losses have a detection, with the default parameters,
  whatever the mean: `benchmarks/drift.py` measures it.
- river is imported when the first detector is made, so that who declares one need not have it.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from clipper_stream.errors import InvalidSetting, ModelNotLoaded, install_command
from clipper_stream.names import make_named

MOST = 1e9


@dataclass(slots=True)
class Detector:
    """Reads the losses of one model, in their order; has a state, and is made anew after each detection."""

    of_river: Any

    def update(self, loss: float) -> bool:
        """Take a loss, or a deviation from one, in [-1, 1] in; True when the mean has changed."""
        self.of_river.update(loss)
        return bool(self.of_river.drift_detected)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adwin:
    """Adaptive windowing: two parts of a window of variable length differ more than chance allows.

    Needs no scale, and is the default.

    Attributes:
        delta: Of its bound on false alarms, in (0, 1); smaller: fewer, and later detections.

    >>> detector = Adwin().make()
    >>> [at for at in range(400) if detector.update(float(at >= 200))]
    [223]

    Source: Bifet and Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SDM 2007.
    """

    name: ClassVar[str] = "adwin"
    delta: float = 0.0002

    def __post_init__(self) -> None:
        _check("delta", self.delta, "above 0, below 1", lambda delta: 0.0 < delta < 1.0)

    def make(self) -> Detector:
        """A detector that has read nothing; `ModelNotLoaded` says how the library is installed where it is missing."""
        return _river("ADWIN", delta=self.delta)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageHinkley:
    """Page-Hinkley: the sum of deviations from the mean has left its lowest, or highest, point by a threshold.

    Attributes:
        delta: Deviation that is none, in [0, 1).
        threshold: Of the sum, > 0; a jump by j is found after about threshold / (j - delta) losses. With 20, 17 of 100
            sequences of 5,000 losses of 0 and 1, half of them 1, had a false detection; with 40 none.
        least: Losses before the first detection, >= 1.

    >>> detector = PageHinkley(threshold=10.0).make()
    >>> [at for at in range(220) if detector.update(float(at >= 200))]
    [210]

    Source: Page, "Continuous Inspection Schemes", Biometrika 41, 1954.
    """

    name: ClassVar[str] = "page_hinkley"
    delta: float = 0.05
    threshold: float = 40.0
    least: int = 30

    def __post_init__(self) -> None:
        _check("delta", self.delta, "at least 0, below 1", lambda delta: 0.0 <= delta < 1.0)
        _check("threshold", self.threshold, f"above 0, at most {MOST:g}", lambda threshold: 0.0 < threshold <= MOST)
        _check("least", self.least, f"without a fraction, 1 to {MOST:g}", lambda of: 1 <= of <= MOST and of % 1 == 0)

    def make(self) -> Detector:
        """As `Adwin.make`."""
        return _river("PageHinkley", delta=self.delta, threshold=self.threshold, min_instances=self.least, mode="both")


DetectorSpec: TypeAlias = Adwin | PageHinkley
"""The parameters of a detector, checked when they are given, also where no library is there."""
DETECTORS: Mapping[str, Callable[..., DetectorSpec]] = {kind.name: kind for kind in (Adwin, PageHinkley)}
"""Every detector by its name."""


def make_spec(name: str, parameters: Mapping[str, Any]) -> DetectorSpec:
    """The detector of this name, with its parameters checked; needs no library. Errors as of `make_named`.

    >>> make_spec("adwin", {"delta": 0.01})
    Adwin(delta=0.01)
    """
    return make_named("detector", DETECTORS, name, parameters)


def _river(name: str, **parameters: Any) -> Detector:
    try:
        found = importlib.import_module("river.drift")
    except ImportError as error:
        raise ModelNotLoaded(f"drift detection needs a library ({error}): {install_command('drift')}") from error
    return Detector(getattr(found, name)(**parameters))


def _check(name: str, value: Any, bounds: str, is_within: Callable[[float], bool]) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not is_within(value):
        raise InvalidSetting(f"{name} is {value!r}: give a number {bounds}")
