"""What every detector of drift is, whoever wrote the algorithm."""

from typing import ClassVar, Protocol


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
