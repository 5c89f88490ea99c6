"""What the steward asks for when a rule fires; who writes the control topic does it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from clipper_agents.observability.logging import event as event_line
from clipper_stream.errors import ClipperError
from clipper_topics.drift import DriftEvent

logger = logging.getLogger(__name__)


class Stale(ClipperError):
    """The application has another revision meanwhile: look again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A change that a rule asks for.

    Attributes:
        command: `step`, `promote`, `abort` or `retire`.
        application: Whose.
        model: About which version, `name:version`.
        revision: Of the application's manifest that was looked at.
        share: Of the canary, for `step`.
        why: The rule that fired.
        numbers: What it was made of.
    """

    command: Literal["step", "promote", "abort", "retire"]
    application: str
    model: str
    revision: int
    share: float | None = None
    why: str = ""
    numbers: Mapping[str, Any]


class Changes(Protocol):
    """Makes changes of applications; what each of them may raise stands here once.

    Raises:
        Stale: the application has another revision than the one that was looked at; nothing was changed.
        KafkaUnreachable: no broker answers; it is not known whether it was changed.
    """

    async def step(
        self, application: str, model: str, share: float, *, why: str, numbers: Mapping[str, Any], revision: int
    ) -> None:
        """The trial becomes, or stays, a canary of this share."""
        ...

    async def promote(
        self, application: str, model: str, *, why: str, numbers: Mapping[str, Any], revision: int
    ) -> None:
        """The trial becomes a candidate."""
        ...

    async def abort(self, application: str, model: str, *, why: str, numbers: Mapping[str, Any], revision: int) -> None:
        """The trial ends."""
        ...

    async def retire(
        self, application: str, model: str, *, why: str, numbers: Mapping[str, Any], revision: int
    ) -> None:
        """The candidate is a candidate no longer."""
        ...

    async def note_drift(self, event: DriftEvent) -> bool:
        """The loss of a version has changed; whether that is news. Nothing else is changed by it."""
        ...


async def make(changes: Changes, decision: Decision) -> None:
    """Have the decision carried out.

    Raises:
        Stale: as `Changes`.
        KafkaUnreachable: as `Changes`.
    """
    said: dict[str, Any] = {"why": decision.why, "numbers": decision.numbers, "revision": decision.revision}
    if decision.command == "step":
        assert decision.share is not None
        await changes.step(decision.application, decision.model, decision.share, **said)
        return
    do = {"promote": changes.promote, "abort": changes.abort, "retire": changes.retire}[decision.command]
    await do(decision.application, decision.model, **said)


class OnlyTold(Changes):
    """Says what it would change, and changes nothing."""

    async def step(
        self, application: str, model: str, share: float, *, why: str, numbers: Mapping[str, Any], revision: int
    ) -> None:
        self._tell(f"canary of {share:g}", application, model, why, numbers, revision)

    async def promote(
        self, application: str, model: str, *, why: str, numbers: Mapping[str, Any], revision: int
    ) -> None:
        self._tell("promote", application, model, why, numbers, revision)

    async def abort(self, application: str, model: str, *, why: str, numbers: Mapping[str, Any], revision: int) -> None:
        self._tell("abort", application, model, why, numbers, revision)

    async def retire(
        self, application: str, model: str, *, why: str, numbers: Mapping[str, Any], revision: int
    ) -> None:
        self._tell("retire", application, model, why, numbers, revision)

    async def note_drift(self, event: DriftEvent) -> bool:
        text = "detection not written, nobody here may write the control topic"
        event_line(logger, text, logging.WARNING, application=event.application, model=event.model)
        return True

    def _tell(
        self, command: str, application: str, model: str, why: str, numbers: Mapping[str, Any], revision: int
    ) -> None:
        text = "change not made, nobody here may write the control topic"
        about: dict[str, Any] = {"command": command, "application": application, "model": model, "revision": revision}
        event_line(logger, text, logging.WARNING, **about, why=why, numbers=dict(numbers))
