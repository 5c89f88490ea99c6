"""The detector of drift: adaptive windowing, as the library river has it.

Rules of this file:
- It is deterministic: the same losses lead to the same detections.
- Without a change of the mean at most 1 % of sequences of 5,000 losses have a detection, with the default `delta`,
  whatever the mean: `benchmarks/drift.py` measures it.
- river is imported when the first detector is made, so that who declares one need not have it.
"""

import importlib

from clipper_stream.errors import ModelNotLoaded, install_command


class Adwin:
    """Adaptive windowing: two parts of a window of variable length differ more than chance allows.

    Reads the losses of one model, in their order, and needs no scale; it is made anew after each detection.

    Args:
        delta: Of its bound on false alarms, in (0, 1); smaller: fewer, and later detections.

    Raises:
        ModelNotLoaded: the library is missing; the message says how it is installed.

    >>> detector = Adwin()
    >>> [at for at in range(400) if detector.update(float(at >= 200))]
    [223]

    Source: Bifet and Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SDM 2007.
    """

    def __init__(self, delta: float = 0.0002) -> None:
        try:
            self._of_river = importlib.import_module("river.drift").ADWIN(delta=delta)
        except ImportError as error:
            raise ModelNotLoaded(f"drift detection needs a library ({error}): {install_command('drift')}") from error

    def update(self, loss: float) -> bool:
        """Take a loss, or a deviation from one, in [-1, 1] in; True when the mean has changed."""
        self._of_river.update(loss)
        return bool(self._of_river.drift_detected)
